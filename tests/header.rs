//! The committed C header is the one that cbindgen makes of the code.

use std::path::Path;

#[test]
fn the_committed_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut generated = Vec::new();
    cbindgen::Builder::new()
        .with_crate(root)
        .with_config(config)
        .generate()
        .expect("cbindgen understands src/capi")
        .write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();

    let path = root.join("include/vfio_display.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "include/vfio_display.h is not what src/capi says; run: UPDATE_HEADER=1 cargo test --test header"
    );
}

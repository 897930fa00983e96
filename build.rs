//! Finds libepoxy, which the EGL import calls: QEMU links it too, so both use the same contexts.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "egl")]
    pkg_config::Config::new()
        .atleast_version("1.5")
        .probe("epoxy")
        .expect("libepoxy is there (Debian: libepoxy-dev), or the feature `egl` is off");
}

//! Checks that the committed C headers are what cbindgen generates, in kernel-doc form.

use std::fs;
use std::path::Path;

/// A header, and its sources.
struct Header {
    path: &'static str,
    sources: &'static [&'static str],
    includes: &'static [&'static str],
    /// The text before the declarations.
    preface: fn() -> String,
    /// Items to include that no other item refers to.
    exports: &'static [&'static str],
}

const HEADERS: [Header; 3] = [
    Header {
        path: "include/vfio_display.h",
        sources: &[
            "src/console.rs",
            "src/capi/version.rs",
            "src/capi/display.rs",
            "src/capi/device.rs",
            "src/capi/console.rs",
            "src/capi/watcher.rs",
        ],
        includes: &["stdbool.h", "stddef.h", "stdint.h", "linux/vfio.h"],
        preface: overview,
        exports: &["VfioDpyMode", "ScanoutSupport"],
    },
    Header {
        path: "include/vfio_display_egl.h",
        sources: &["src/capi/egl.rs", "src/capi/read_back.rs"],
        includes: &["stdbool.h", "stddef.h", "stdint.h"],
        preface: || EGL.to_owned(),
        exports: &["VfioDpyEglColorSpace"],
    },
    Header {
        path: "include/vfio_display_objects.h",
        sources: &["src/capi/shared_objects.rs"],
        includes: &["stdbool.h", "stddef.h", "stdint.h"],
        preface: || OBJECTS.to_owned(),
        exports: &[],
    },
];

const EGL: &str = "
/**
 * DOC: dma-bufs in OpenGL
 *
 * Imports dma-bufs as textures, and reads pictures back. The functions are
 * there if the library was built with libepoxy: the variable `egl` of
 * pkg-config, and of meson's dependency, is then `true`, and only then is this
 * header installed. vfio_display.h has the rules for all functions.
 */
";

const OBJECTS: &str = "
/**
 * DOC: shared objects
 *
 * A table of dma-bufs that the devices of a VM share, by UUID. All functions
 * may be called from any thread. vfio_display.h has the rules for all functions.
 */
";

/// The version, and rules for all functions.
fn overview() -> String {
    let [major, minor, micro] = [
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    ];
    format!(
        "
{}
/**
 * VFIO_DISPLAY_VERSION - The version of this header: see vfio_dpy_check_version().
 */
#define VFIO_DISPLAY_VERSION_MAJOR {major}
#define VFIO_DISPLAY_VERSION_MINOR {minor}
#define VFIO_DISPLAY_VERSION_MICRO {micro}
#define VFIO_DISPLAY_VERSION \\
    ((VFIO_DISPLAY_VERSION_MAJOR << 16) | (VFIO_DISPLAY_VERSION_MINOR << 8) | \\
     VFIO_DISPLAY_VERSION_MICRO)
",
        include_str!("../src/capi/overview.h"),
    )
}

#[test]
fn the_committed_headers_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for header in &HEADERS {
        let generated = generate(root, header);
        let path = root.join(header.path);
        if std::env::var_os("UPDATE_HEADER").is_some() {
            fs::write(&path, &generated).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == generated,
            "{} is not what src/capi says; run: UPDATE_HEADER=1 cargo test --test header",
            header.path
        );
    }
}

fn generate(root: &Path, header: &Header) -> String {
    let name = Path::new(header.path).file_stem().unwrap().to_str().unwrap();
    let mut config =
        cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    config.header = Some("/* SPDX-License-Identifier: GPL-2.0-or-later */".to_owned());
    config.include_guard = Some(format!("{}_H", name.to_uppercase()));
    config.sys_includes = header.includes.iter().map(ToString::to_string).collect();
    config.after_includes = Some((header.preface)());
    config.export.include = header.exports.iter().map(ToString::to_string).collect();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in header.sources {
        builder = builder.with_src(root.join(source));
    }
    let mut generated = Vec::new();
    builder.generate().expect("cbindgen understands src/capi").write(&mut generated);
    kernel_doc(&String::from_utf8(generated).unwrap())
}

/// Maximum columns of a header.
const WIDTH: usize = 80;

/// Converts comments to kernel-doc: named after what follows, wrapped, without the Rust sections.
fn kernel_doc(header: &str) -> String {
    let mut out = Vec::new();
    let mut lines = header.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start() != "/**" {
            out.push(line.to_owned());
            continue;
        }
        let indent = &line[..line.len() - "/**".len()];
        let mut text: Vec<_> = lines
            .by_ref()
            .map(|line| line.trim_start().trim_start_matches('*'))
            .take_while(|line| *line != "/")
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect();
        let mut folded = match name_of(lines.peek().unwrap_or(&"")) {
            Some(name) => {
                let safety = text.iter().position(|line| *line == "# Safety");
                text.truncate(safety.unwrap_or(text.len()));
                if name.ends_with("() - ") {
                    let declaration: String =
                        lines.clone().take_while(|line| !line.is_empty()).collect();
                    assert_eq!(explained(&text), parameters(&declaration), "{name}");
                }
                fold(&name, &text, WIDTH - indent.len() - " * ".len())
            }
            None => text.iter().map(ToString::to_string).collect(),
        };
        while folded.last().is_some_and(String::is_empty) {
            folded.pop();
        }
        out.push(line.to_owned());
        out.extend(folded.iter().map(|line| format!("{indent} * {line}").trim_end().to_owned()));
        out.push(format!("{indent} */"));
    }
    out.join("\n") + "\n"
}

/// The parameters that a comment explains.
fn explained<'a>(text: &[&'a str]) -> Vec<&'a str> {
    text.iter().filter_map(|line| line.strip_prefix('@')?.split(':').next()).collect()
}

/// The names of a function's parameters, without those of callbacks' types.
fn parameters(declaration: &str) -> Vec<&str> {
    let (_, list) = declaration.split_once('(').expect("it is a function");
    let list = list.trim_end_matches(");");
    let names = list.split(',').map(str::trim).map(|parameter| {
        let name = parameter.split_once("(*").map(|(_, callback)| callback.split(')').next());
        name.flatten().or(parameter.rsplit([' ', '*']).next()).unwrap_or_default()
    });
    names.filter(|name| *name != "void").collect()
}

/// The start of the comment on this declaration; `None` if the line is no declaration.
fn name_of(declaration: &str) -> Option<String> {
    let word_before = |end: &str| declaration.split(end).next()?.rsplit([' ', '*']).next();
    if declaration.starts_with("typedef ") && declaration.ends_with(';') {
        Some(format!("typedef {} - ", word_before(";")?))
    } else if let Some(kind) = declaration.strip_prefix("typedef ") {
        let name: Vec<_> = kind.split(' ').take(2).collect();
        Some(format!("{} - ", name.join(" ")))
    } else if let Some((_, callback)) =
        declaration.split_once("(*").filter(|_| declaration.starts_with(' '))
    {
        Some(format!("@{}: ", callback.split(')').next()?))
    } else if declaration.starts_with(' ') {
        let end = ["[", " = ", ";"].into_iter().find(|end| declaration.contains(end))?;
        Some(format!("@{}: ", word_before(end)?))
    } else {
        declaration.contains("vfio_dpy_").then(|| Some(format!("{}() - ", word_before("(")?)))?
    }
}

/// Wraps paragraphs. One begins after an empty line, with a parameter, "Return:", or a hyphen.
fn fold(name: &str, text: &[&str], width: usize) -> Vec<String> {
    let mut lines = vec![name.trim_end().to_owned()];
    for (at, line) in text.iter().enumerate() {
        let begins =
            line.is_empty() || ["@", "- ", "Return:"].iter().any(|mark| line.starts_with(mark));
        if at > 0 && (begins || text[at - 1].is_empty()) {
            lines.push(String::new());
        }
        for word in line.split_whitespace() {
            let last = lines.last_mut().expect("there is a line");
            if last.is_empty() {
                last.push_str(word);
            } else if last.len() + 1 + word.len() <= width {
                *last = format!("{last} {word}");
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}

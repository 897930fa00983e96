# The library is a meson subproject, and its crates are in the source package: nothing is fetched.

export CARGO_HOME := ${CURDIR}/b/cargo
export CARGO_NET_OFFLINE := true
export RUSTFLAGS := --remap-path-prefix=${CURDIR}=.

b/qemu/configured: subprojects/vfio-display b/cargo/config.toml

subprojects/vfio-display:
	ln -s ../vfio-display $@

b/cargo/config.toml:
	mkdir -p ${@D}
	printf '%s\n' \
	    '[source.crates-io]' 'replace-with = "vendor"' \
	    '[source.vendor]' 'directory = "${CURDIR}/vfio-display/vendor"' > $@

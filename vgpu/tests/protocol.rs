//! The vfio-user messages, to the byte.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use common::*;
use rustix::event::EventfdFlags;
use serde_json::json;

#[test]
fn version_agrees_on_graphics_planes_only_if_both_want_them() {
    let server = Server::start(&[]);
    for (offer, agreed) in [
        (r#"{"capabilities":{"gfx_plane":true}}"#, json!(true)),
        (r#"{"capabilities":{"gfx_plane":false}}"#, json!(null)),
        (r#"{"capabilities":{"max_msg_fds":8}}"#, json!(null)),
        (r"{}", json!(null)),
        ("", json!(null)),
    ] {
        let mut client = server.connect();
        let capabilities = client.version(offer)["capabilities"].clone();
        assert_eq!(capabilities["gfx_plane"], agreed, "{offer}");
        assert_eq!(capabilities["max_msg_fds"], 8);
        assert_eq!(capabilities["max_data_xfer_size"], 1 << 20);
        assert_eq!(capabilities["write_multiple"], json!(null));
        let reply = client.query(PROBE | DMABUF, PRIMARY);
        if agreed == true {
            reply.ok();
        } else {
            assert_eq!(reply.errno(), ENOTTY);
            assert_eq!(client.get(1).errno(), ENOTTY);
        }
    }
}

#[test]
fn a_server_without_graphics_planes_says_so() {
    let server = Server::start(&["--no-gfx"]);
    let mut client = server.connect();
    let answer = client.version(r#"{"capabilities":{"gfx_plane":true}}"#);
    assert_eq!(answer["capabilities"]["gfx_plane"], json!(null));
    assert_eq!(client.query(PROBE | DMABUF, PRIMARY).errno(), ENOTTY);

    let server = Server::start(&["--no-plane"]);
    let mut client = server.client();
    assert_eq!(client.query(PROBE | DMABUF, PRIMARY).errno(), EINVAL);
    assert_eq!(client.query(PROBE | REGION, PRIMARY).errno(), EINVAL);
    assert_eq!(client.query(DMABUF, PRIMARY).errno(), EINVAL);
}

#[test]
fn nothing_is_answered_before_version_and_other_versions_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.call(GET_INFO, &words(&[16, 0, 0, 0])).errno(), EINVAL);
    assert_eq!(client.call(VERSION, &[1, 0, 0, 0, b'{', b'}', 0]).errno(), EINVAL);
    assert_eq!(client.call(VERSION, &[0, 0, 0, 0, b'{', 0]).errno(), EINVAL);
    assert_eq!(client.call(VERSION, &[0, 0]).errno(), EINVAL);
    client.version("{}");
    client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
}

#[test]
fn a_client_that_ends_without_its_last_answer_breaks_no_rule() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send(GET_INFO, 0, &words(&[16, 0, 0, 0]));
    // The answer is there, and most of it is not read.
    client.stream.read_exact(&mut [0]).unwrap();
    drop(client);
    server.client().call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
    let stats = server.json("stats");
    assert_eq!((&stats["connections"], &stats["protocol_errors"]), (&json!(2), &json!(0)));
}

#[test]
fn device_information_is_that_of_a_pci_device() {
    for (args, regions) in [
        (&["--personality", "mbochs"][..], 10),
        (&["--personality", "gvt", "--mappable"], 10),
        (&["--personality", "gvt", "--mappable", "--no-edid"], 9),
        (&["--personality", "nvidia"], 9),
        (&["--personality", "mdpy"], 9),
        (&["--personality", "nvidia", "--edid-region"], 11),
        (&["--personality", "mdpy", "--edid-region"], 10),
    ] {
        let server = Server::start(args);
        let mut client = server.client();
        let reply = client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
        assert_eq!(reply.payload, words(&[16, 3, regions, 5]), "{args:?}");
        assert_eq!(client.call(GET_INFO, &words(&[15, 0, 0, 0])).errno(), EINVAL);
        for index in [0, 1, 2, 4] {
            let reply = client.call(GET_IRQ_INFO, &words(&[16, 0, index, 7])).ok();
            assert_eq!(reply.payload, words(&[16, 0, index, 0]));
        }
        assert_eq!(client.call(GET_IRQ_INFO, &words(&[16, 0, 5, 0])).errno(), EINVAL);
    }
}

#[test]
fn query_and_get_are_the_extension_to_the_byte() {
    let server = Server::start(&[]);
    server.ctl("mode 640x480 fourcc=XR24 stride=2600 buffers=2");
    server.ctl("pattern noise seed=7");
    let mut client = server.client();

    client.query(PROBE | DMABUF, PRIMARY).ok();
    assert_eq!(client.query(PROBE | REGION, PRIMARY).errno(), EINVAL);
    assert_eq!(client.query(DMABUF, PRIMARY).errno(), ENOMEM, "mbochs: first of a new mode");
    // The reserved word beyond the 60 bytes that drivers know comes back as it was.
    let request = plane_info(&[(0, 64), (4, DMABUF), (8, PRIMARY), (24, 99), (60, 0xabcd)]);
    let reply = client.call(QUERY, &request).ok();
    let expected = plane_info(&[
        (0, 64),
        (4, DMABUF),
        (8, PRIMARY),
        (12, u32::from_le_bytes(*b"XR24")),
        (24, 640),
        (28, 480),
        (32, 2600),
        (36, 2600 * 480),
        (56, 1),
        (60, 0xabcd),
    ]);
    assert_eq!(reply.payload, expected);
    assert!(reply.fds.is_empty());

    let reply = client.get(1).ok();
    assert_eq!(reply.payload, words(&[16, 0, 1, 0]));
    assert_eq!(reply.fds.len(), 1);
    assert!(file_size(&reply.fds[0]) >= 2600 * 480);
    let (width, height, shot) = server.screenshot(&[]).unwrap();
    assert_eq!((width, height), (640, 480));
    for y in [0_usize, 1, 479] {
        let row = read_fd(&reply.fds[0], y as u64 * 2600, 2560);
        let rgb: Vec<u8> = row.chunks(4).flat_map(|p| [p[2], p[1], p[0]]).collect();
        assert_eq!(rgb, shot[y * 1920..(y + 1) * 1920], "row {y}");
    }

    assert_eq!(client.get(2).errno(), ENOENT);
    assert_eq!(client.get(0).errno(), ENOENT);
}

#[test]
fn a_plane_that_is_off_is_a_success_with_zeros() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let nothing = plane_info(&[(0, 64), (4, DMABUF), (8, PRIMARY)]);
    assert_eq!(client.query(DMABUF, PRIMARY).ok().payload, nothing);
    server.ctl("mode 640x480");
    assert_eq!(client.query_primary().ok().u32(24), 640);
    server.ctl("plane off");
    assert_eq!(client.query(DMABUF, PRIMARY).ok().payload, nothing);
    server.ctl("plane on");
    assert_eq!(client.query(DMABUF, PRIMARY).ok().u32(56), 1, "back, with its old id");
}

#[test]
fn bad_arguments_are_einval() {
    let server = Server::start(&[]);
    server.ctl("mode 640x480");
    let mut client = server.client();
    assert_eq!(client.call(QUERY, &plane_info(&[(0, 59), (4, DMABUF), (8, 1)])).errno(), EINVAL);
    assert_eq!(client.call(QUERY, &plane_info(&[(0, 60), (4, DMABUF), (8, 1)])).errno(), ENOMEM);
    client.call(QUERY, &plane_info(&[(0, 4096), (4, DMABUF), (8, 1)])).ok();
    for payload in [0, 1, 60, 63, 65, 128] {
        assert_eq!(client.call(QUERY, &vec![2; payload]).errno(), EINVAL, "{payload} bytes");
    }
    for flags in [0, PROBE, REGION, 6, 7, 8, 0xffff_ffff] {
        assert_eq!(client.query(flags, PRIMARY).errno(), EINVAL, "flags {flags:#x}");
    }
    assert_eq!(client.call(GET, &words(&[12, 0, 1, 0])).errno(), EINVAL);
    assert_eq!(client.call(GET, &words(&[16, 1, 1, 0])).errno(), EINVAL);
    assert_eq!(client.call(GET, &words(&[16, 0, 1])).errno(), EINVAL);
    assert_eq!(client.call(77, &[]).errno(), ENOSYS);
    client.get(1).ok();
}

#[test]
fn bar_0_is_memory_that_can_be_mapped() {
    let server = Server::start(&["--vram", "4"]);
    let mut client = server.client();
    let reply = client.region_info(0, 32).ok();
    assert_eq!(reply.payload, words(&[32, 7, 0, 0, 4 << 20, 0, 0, 0]));
    assert_eq!(reply.fds.len(), 1);
    assert_eq!(file_size(&reply.fds[0]), 4 << 20);
    assert!(rustix::fs::ftruncate(&reply.fds[0], 0).is_err(), "sealed, as udmabuf demands");
    client.write(0, 4096, b"guest").ok();
    assert_eq!(read_fd(&reply.fds[0], 4096, 5), b"guest");
    rustix::io::pwrite(&reply.fds[0], b"GUEST", (4 << 20) - 5).unwrap();
    assert_eq!(client.data(0, (4 << 20) - 5, 5), b"GUEST");
    assert_eq!(client.read(0, (4 << 20) - 4, 5).errno(), EINVAL);
    assert_eq!(client.read(0, u64::MAX, 2).errno(), EINVAL);
    assert_eq!(client.read(0, 0, (1 << 20) + 1).errno(), EINVAL);
    assert_eq!(client.data(0, 0, 1 << 20).len(), 1 << 20);
    // More announced than sent.
    let mut payload = vec![0; 8];
    payload.extend(words(&[0, 8, 1]));
    assert_eq!(client.call(REGION_WRITE, &payload).errno(), EINVAL);
}

#[test]
fn other_regions_are_what_a_pci_device_has() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let sizes = [(1, 0, 0), (2, 3, 4096), (5, 0, 0), (6, 0, 0), (7, 3, 256), (8, 0, 0)];
    for (index, flags, size) in sizes {
        let reply = client.region_info(index, 32).ok();
        assert_eq!(reply.payload, words(&[32, flags, index, 0, size, 0, 0, 0]));
        assert!(reply.fds.is_empty());
    }
    assert_eq!(client.region_info(10, 32).errno(), EINVAL);
    assert_eq!(client.region_info(0, 31).errno(), EINVAL);
    assert_eq!(client.region_info(0, 49).errno(), EINVAL, "mbochs takes no more than 48");
    assert_eq!(client.data(7, 0, 4), [0x34, 0x12, 0x11, 0x11]);
    assert_eq!(client.data(7, 0, 256).len(), 256);
    assert_eq!(client.read(7, 0, 257).errno(), EINVAL);
    assert_eq!(client.write(7, 255, &[0, 0]).errno(), EINVAL);
    assert_eq!(client.read(1, 0, 4).errno(), EINVAL);
}

#[test]
fn the_edid_region_is_found_by_its_capability() {
    let capability = words(&[0x0001_0002, 0, 1, 1]);
    let mbochs = Server::start(&[]);
    let mut client = mbochs.client();
    let cut = client.region_info(9, 32).ok();
    assert_eq!(cut.payload, words(&[48, 0xb, 9, 32, 4096, 0, 0, 0]), "offset told all the same");
    let whole = client.region_info(9, 48).ok();
    assert_eq!(whole.payload[..32], cut.payload);
    assert_eq!(whole.payload[32..], capability);

    let gvt = Server::start(&["--personality", "gvt", "--mappable"]);
    let mut client = gvt.client();
    let cut = client.region_info(9, 32).ok();
    assert_eq!(cut.payload, words(&[48, 0xb, 9, 0, 128, 0, 0, 0]), "offset zeroed");
    let whole = client.region_info(9, 48).ok();
    assert_eq!(whole.payload[..32], words(&[48, 0xb, 9, 32, 128, 0, 0, 0]));
    assert_eq!(whole.payload[32..], capability);

    let nvidia = Server::start(&["--personality", "nvidia", "--edid-region"]);
    let mut client = nvidia.client();
    assert_eq!(client.region_info(9, 48).ok().u32(4), 7, "the display region keeps its index");
    assert_eq!(client.region_info(10, 48).ok().payload[32..], capability);

    let none = Server::start(&["--no-edid"]);
    assert_eq!(none.client().region_info(9, 32).errno(), EINVAL);
    assert!(none.ctl_error("edid").contains("no EDID region"));
}

#[test]
fn an_edid_that_the_host_writes_reaches_the_guest() {
    let server = Server::start(&["--edid-max", "2560x1600"]);
    let mut client = server.client();
    let mut blob = vec![0; 128];
    blob[..8].copy_from_slice(&[0, 255, 255, 255, 255, 255, 255, 0]);
    // 1280x800 at 83.5 MHz, totals 1680 and 831.
    blob[54..62].copy_from_slice(&[0x9e, 0x20, 0x00, 0x90, 0x51, 0x20, 0x1f, 0x30]);
    assert_eq!(client.data(9, 0, 4), 2048_u32.to_le_bytes());
    assert_eq!(client.data(9, 12, 4), 2560_u32.to_le_bytes());
    assert_eq!(client.data(9, 16, 4), 1600_u32.to_le_bytes());
    client.write(9, 20, &2_u32.to_le_bytes()).ok();
    client.write(9, 8, &128_u32.to_le_bytes()).ok();
    client.write(9, 2048, &blob).ok();
    assert_eq!(client.data(2, 0, 8), [0; 8], "the link is down");
    client.write(9, 20, &1_u32.to_le_bytes()).ok();
    assert_eq!(client.data(2, 0, 128), blob);
    let edid = server.json("edid");
    assert_eq!((&edid["size"], &edid["link_state"]), (&json!(128), &json!("up")));
    let preferred = &edid["preferred"];
    assert_eq!((&preferred["width"], &preferred["height"]), (&json!(1280), &json!(800)));
    assert_eq!(preferred["refresh_millihertz"], 59_810);
    let stats = server.json("stats");
    assert_eq!((&stats["edid_writes"], &stats["edid_blobs"]), (&json!(4), &json!(1)));
    assert!(stats["edid_hex"].as_str().unwrap().starts_with("00ffffffffffff00"));
}

#[test]
fn gvt_refuses_a_broken_edid() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    let mut client = server.client();
    client.write(9, 8, &128_u32.to_le_bytes()).ok();
    client.write(9, 2048, &[1; 128]).ok();
    assert_eq!(client.write(9, 20, &1_u32.to_le_bytes()).errno(), EFAULT);
    assert_eq!(client.read(9, 2, 4).errno(), EFAULT);
    assert_eq!(server.json("stats")["link_state"], "unset");
}

#[test]
fn the_guest_drives_the_plane_through_the_registers() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let vram = client.region_info(0, 32).ok().fds.remove(0);
    client.guest_mode(800, 600);
    assert_eq!(client.data(2, 0x500, 2), 0xb0c5_u16.to_le_bytes());
    rustix::io::pwrite(&vram, &[1, 2, 3, 0], 4 * (799 + 599 * 800)).unwrap();
    let info = client.query_primary().ok();
    assert_eq!((info.u32(24), info.u32(28), info.u32(32)), (800, 600, 3200));
    let fd = client.get(info.u32(56)).ok().fds.remove(0);
    assert_eq!(read_fd(&fd, 4 * (799 + 599 * 800), 4), [1, 2, 3, 0]);
    rustix::io::pwrite(&vram, &[9, 9, 9, 0], 0).unwrap();
    assert_eq!(read_fd(&fd, 0, 3), [9, 9, 9], "live");
    let (.., shot) = server.screenshot(&[]).unwrap();
    assert_eq!((&shot[..3], &shot[shot.len() - 3..]), (&[9, 9, 9][..], &[3, 2, 1][..]));

    // Panned: the pixels are at byte 0 of another buffer.
    client.write(2, 0x500 + 2 * 9, &640_u16.to_le_bytes()).ok();
    rustix::io::pwrite(&vram, b"panned", 3200 * 640).unwrap();
    let info = client.query_primary().ok();
    assert_eq!(info.u32(56), 2);
    let fd = client.get(2).ok().fds.remove(0);
    assert_eq!(read_fd(&fd, 0, 6), b"panned");

    client.call(RESET, &[]).ok();
    assert_eq!(client.query(DMABUF, PRIMARY).ok().u32(24), 0);
    assert_eq!(server.json("stats")["resets"], 1);
}

#[test]
fn region_personalities_answer_beyond_their_number_of_regions() {
    for (name, index, size) in [("nvidia", 9, 16 << 20), ("mdpy", 16, 4 << 20)] {
        let server = Server::start(&["--personality", name, "--vram", "4"]);
        let mut client = server.client();
        assert_eq!(client.query(PROBE | DMABUF, PRIMARY).errno(), EINVAL);
        client.query(PROBE | REGION, 0).ok();
        server.ctl("mode 100x64 buffers=2");
        server.ctl("pattern noise seed=1 buffer=0");
        server.ctl("pattern noise seed=2 buffer=1");
        let info = client.query(REGION, 0).ok();
        let stride = if name == "nvidia" { 512 } else { 400 };
        assert_eq!((info.u32(24), info.u32(32), info.u32(56)), (100, stride, index), "{name}");
        assert_eq!(info.u32(36), if name == "mdpy" { 4 << 20 } else { 512 * 64 });
        let reply = client.region_info(index, 32).ok();
        assert_eq!(reply.payload, words(&[32, 7, index, 0, size, 0, 0, 0]));
        for _ in 0..3 {
            let (.., shot) = server.screenshot(&[]).unwrap();
            for y in 0..64 {
                let row = read_fd(&reply.fds[0], y * u64::from(stride), 400);
                let rgb: Vec<u8> = row.chunks(4).flat_map(|p| [p[2], p[1], p[0]]).collect();
                let y = usize::try_from(y).unwrap();
                assert_eq!(rgb, shot[y * 300..(y + 1) * 300], "{name}, row {y}");
            }
            server.ctl("flip");
            server.ctl("rect 5,5,20x20 123456");
        }
        assert!(client.get(1).errno() != 0);
        assert_eq!(client.region_info(index + 1, 32).errno(), EINVAL);
    }
}

#[test]
fn a_display_region_that_cannot_be_mapped_can_be_read() {
    let server = Server::start(&["--personality", "nvidia", "--no-region-mmap"]);
    server.ctl("mode 64x64");
    server.ctl("pattern solid:112233");
    let mut client = server.client();
    let reply = client.region_info(9, 32).ok();
    assert_eq!((reply.u32(4), reply.u64(16), reply.fds.len()), (3, 16 << 20, 0));
    assert_eq!(client.data(9, 4, 4), [0x33, 0x22, 0x11, 0]);
    assert_eq!(client.region_info(0, 32).ok().fds.len(), 1);
}

#[test]
fn mdpy_tells_its_mode_in_a_capability() {
    let server = Server::start(&["--personality", "mdpy"]);
    let mut client = server.client();
    assert_eq!(client.data(7, 0, 4), [0x36, 0x1b, 0x0f, 0]);
    assert_eq!(client.data(7, 0x34, 1), [0x40]);
    let mode = |client: &mut Client| client.data(7, 0x44, 12);
    assert_eq!(mode(&mut client), words(&[u32::from_le_bytes(*b"XR24"), 1024, 768]));
    server.ctl("mode 640x480");
    assert_eq!(mode(&mut client), words(&[u32::from_le_bytes(*b"XR24"), 640, 480]));
    server.ctl("guest");
    assert_eq!(mode(&mut client), words(&[u32::from_le_bytes(*b"XR24"), 1024, 768]));
    assert_eq!(client.query(REGION, 0).ok().u32(24), 1024);
}

#[test]
fn nvidia_may_report_the_pitch_as_width() {
    let server = Server::start(&["--personality", "nvidia"]);
    let mut client = server.client();
    server.ctl("mode 1366x768 padded-width");
    let info = client.query(REGION, 0).ok();
    assert_eq!((info.u32(24), info.u32(28), info.u32(32)), (1376, 768, 5504));
    let (width, ..) = server.screenshot(&[]).unwrap();
    assert_eq!(width, 1366);
    let error = server.ctl_error("mode 3840x2160");
    assert!(error.contains("--vram"), "{error}");
}

#[test]
fn gvt_frees_an_id_when_the_client_closes_the_last_descriptor() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    let mut client = server.client();
    server.ctl("mode 640x480");
    assert_eq!(client.query(DMABUF, PRIMARY).ok().u32(56), 1);
    let first = client.get(1).ok().fds;
    let second = client.get(1).ok().fds;
    server.ctl("mode 640x480");
    assert_eq!(client.query(DMABUF, PRIMARY).ok().u32(56), 2, "1 is held");
    assert_eq!(server.json("stats")["held_ids"], json!([1]));
    drop(first);
    client.get(1).ok();
    drop(second);
    // A child that another test is just starting may have a copy until it calls exec.
    while client.get(1).flags == 1 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(client.get(1).errno(), EINVAL);
    server.ctl("mode 800x600");
    assert_eq!(client.query(DMABUF, PRIMARY).ok().u32(56), 1, "free again, for something else");
}

#[test]
fn dma_bufs_are_read_only_on_request() {
    for (args, writable) in [(["--memfd"], true), (["--read-only"], false)] {
        let server = Server::start(&args);
        server.ctl("mode 640x480");
        let mut client = server.client();
        let id = client.query_primary().ok().u32(56);
        let fd = client.get(id).ok().fds.remove(0);
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0).is_ok(), writable);
        assert_eq!(read_fd(&fd, 0, 1), if writable { b"x" } else { b"\0" });
    }
}

#[test]
fn another_vendor_may_have_made_it() {
    let server = Server::start(&["--pci-vendor", "10de"]);
    assert_eq!(server.client().data(7, 0, 4), [0xde, 0x10, 0x11, 0x11]);
}

#[test]
fn gvt_has_a_cursor() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    let mut client = server.client();
    assert_eq!(client.query(DMABUF, 0).errno(), EINVAL);
    let untouched = plane_info(&[(0, 64), (4, DMABUF), (8, CURSOR), (24, 5), (56, 77)]);
    assert_eq!(client.call(QUERY, &untouched).ok().payload, untouched);
    server.ctl("mode 640x480");
    server.ctl("cursor 64x64 -5,7 color=80800000");
    let reply = client.query(DMABUF, CURSOR).ok();
    let expected = plane_info(&[
        (0, 64),
        (4, DMABUF),
        (8, CURSOR),
        (12, u32::from_le_bytes(*b"AR24")),
        (24, 64),
        (28, 64),
        (32, 256),
        (36, 64 * 256),
        (40, 5),
        (44, 7),
        (48, u32::MAX),
        (52, u32::MAX),
        (56, 1),
    ]);
    assert_eq!(reply.payload, expected);
    let fd = client.get(1).ok().fds.remove(0);
    assert_eq!(read_fd(&fd, 0, 4), [0, 0, 0x80, 0x80]);
    let (.., with) = server.screenshot(&[]).unwrap();
    let (.., without) = server.screenshot(&["--no-cursor"]).unwrap();
    let pixel = |shot: &[u8], x: usize, y: usize| shot[3 * (y * 640 + x)..][..3].to_vec();
    assert_eq!(pixel(&with, 58, 7), [128, 0, 0], "the last column that is on screen");
    assert_eq!((pixel(&with, 59, 7), pixel(&with, 0, 6)), (vec![0; 3], vec![0; 3]));
    assert!(without.iter().all(|byte| *byte == 0));
    server.ctl("cursor color ff010203");
    assert_eq!(read_fd(&fd, 0, 4), [3, 2, 1, 0xff], "drawn in place");
    server.ctl("cursor move 10,20");
    assert_eq!(client.query(DMABUF, CURSOR).ok().u32(40), 10);
    server.ctl("cursor 128x128 0,0 hot=3,4");
    let info = client.query(DMABUF, CURSOR).ok();
    assert_eq!((info.u32(48), info.u32(52), info.u32(56)), (3, 4, 2));
    server.ctl("cursor off");
    assert_eq!(client.query(DMABUF, CURSOR).ok().u32(12), 0);
}

#[test]
fn state_outlives_the_client_until_a_reset() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.guest_mode(640, 480);
    client.write(7, 4, &7_u16.to_le_bytes()).ok();
    client.query_primary().ok();
    drop(client);
    let mut client = server.client();
    assert_eq!(client.data(7, 4, 2), [7, 0]);
    assert_eq!(client.get(1).errno(), ENOENT, "the device was closed");
    let info = client.query_primary().ok();
    assert_eq!((info.u32(24), info.u32(56)), (640, 2), "ids count on");
    client.call(RESET, &[]).ok();
    assert_eq!(client.data(7, 4, 2), [0, 0]);
    assert_eq!(server.json("stats")["connections"], 2);
}

#[test]
fn a_reset_treats_a_host_driven_plane_as_told() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for (what, width) in [("keep", 640), ("off", 0), ("guest", 0)] {
        server.ctl("mode 640x480");
        server.ctl(&format!("on-reset {what}"));
        client.call(RESET, &[]).ok();
        let state = server.json("state");
        assert_eq!(client.query_primary().ok().u32(24), width, "{what}");
        assert_eq!(state["driver"], if what == "guest" { "guest" } else { "host" });
    }
}

#[test]
fn requests_without_reply_get_none() {
    let server = Server::start(&["--write-multiple"]);
    let mut client = server.client();
    let mut write = 0_u64.to_le_bytes().to_vec();
    write.extend(words(&[0, 4, 0x0403_0201]));
    client.send(REGION_WRITE, 0x10, &write);
    client.send(REGION_WRITE, 0x10, &[]);
    client.send(77, 0x10, &[]);
    let mut multi = 2_u64.to_le_bytes().to_vec();
    for (offset, count) in [(8_u64, 4), (16, 2)] {
        multi.extend(offset.to_le_bytes());
        multi.extend(words(&[0, count, 0x5555_5555, 0x5555_5555]));
    }
    client.send(WRITE_MULTI, 0x10, &multi);
    assert_eq!(
        client.data(0, 0, 24),
        [1, 2, 3, 4, 0, 0, 0, 0, 85, 85, 85, 85, 0, 0, 0, 0, 85, 85, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(client.call(WRITE_MULTI, &multi).ok().payload, 2_u64.to_le_bytes());
    multi[0] = 3;
    assert_eq!(client.call(WRITE_MULTI, &multi).errno(), EINVAL);
    multi[..8].fill(0xff);
    assert_eq!(client.call(WRITE_MULTI, &multi).errno(), EINVAL);
    assert_eq!(client.call(WRITE_MULTI, &[]).errno(), EINVAL);

    let plain = Server::start(&[]);
    assert_eq!(plain.client().call(WRITE_MULTI, &multi).errno(), ENOSYS);
}

#[test]
fn surplus_descriptors_are_closed() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let file = File::open("/dev/null").unwrap();
    client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
    let before = server.descriptors();
    for count in [1, 3, 8, 16] {
        client.send_with_fds(GET_INFO, &words(&[16, 0, 0, 0]), &vec![&file; count]);
        client.receive().expect("a reply").ok();
        let mut map = vec![0; 32];
        map[0] = 32;
        client.send_with_fds(2, &map, &vec![&file; count]);
        client.receive().expect("a reply").ok();
    }
    client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
    assert_eq!(server.descriptors(), before);
}

#[test]
fn nonsense_costs_the_connection_at_most() {
    let server = Server::start(&[]);
    server.ctl("mode 640x480");
    for size in [0_u32, 15, (1 << 20) + 81, u32::MAX] {
        let mut client = server.client();
        let mut header = client.header(GET_INFO, 0, 0);
        header[4..8].copy_from_slice(&size.to_le_bytes());
        std::io::Write::write_all(&mut client.stream, &header).unwrap();
        assert!(client.receive().is_none(), "size {size}");
    }
    let mut client = server.client();
    client.send(GET_INFO, 1, &[]);
    assert!(client.receive().is_none(), "a reply to nothing");

    // Payloads of every length and many contents to every command.
    let mut client = server.client();
    let mut seed = 0x1234_5678_9abc_def0_u64;
    for round in 0..4000_u32 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let command = match round % 20 {
            18 => QUERY,
            19 => GET,
            other => u16::try_from(other).unwrap(),
        };
        let length = usize::try_from(seed >> 20).unwrap() % 90;
        let mask = if seed & 1 == 0 { 0xff } else { 0x03 };
        let payload: Vec<u8> = (0..length)
            .map(|i| seed.rotate_left(u32::try_from(i).unwrap() * 7).to_le_bytes()[0] & mask)
            .collect();
        if command == VERSION {
            // It would change what was agreed on.
            continue;
        }
        client.call(command, &payload);
    }
    client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
    assert_eq!(server.json("stats")["connections"], 6);
}

/// What SET_IRQS says of the display interrupt.
fn set_irqs(flags: u32, start: u32, count: u32) -> Vec<u8> {
    words(&[20, flags, 5, start, count])
}

const DATA_NONE: u32 = 1;
const DATA_EVENTFD: u32 = 4;
const TRIGGER: u32 = 32;

fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

/// Returns what was signalled since the last time.
fn value(eventfd: &OwnedFd) -> u64 {
    let mut value = [0; 8];
    match rustix::io::read(eventfd, &mut value) {
        Ok(8) => u64::from_ne_bytes(value),
        Err(rustix::io::Errno::AGAIN) => 0,
        other => panic!("{other:?}"),
    }
}

/// A client that has given the device this eventfd.
fn listener(server: &Server, eventfd: &OwnedFd) -> Client {
    let mut client = server.client();
    client.send_with_fds(SET_IRQS, &set_irqs(DATA_EVENTFD | TRIGGER, 0, 1), &[eventfd]);
    assert_eq!(client.receive().unwrap().ok().payload, [0; 0]);
    client
}

const CURSOR_CHANGED: u64 = 1;
const PRIMARY_CHANGED: u64 = 1 << 32;

#[test]
fn the_display_interrupt_is_found_by_its_capability() {
    let server = Server::start(&["--display-events"]);
    let mut client = server.client();
    let reply = client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
    assert_eq!(reply.payload, words(&[16, 3, 10, 6]));
    let mut info = |argsz| client.call(GET_IRQ_INFO, &words(&[argsz, 0, 5, 0]));
    let whole = words(&[56, 17, 5, 1, 24, 0, 0x1_0001, 40, 1, 1, 0x1_0002, 0, 0x2000, 0]);
    for argsz in [56, 57, 4096] {
        assert_eq!(info(argsz).ok().payload, whole);
    }
    for argsz in [20, 24, 40, 55] {
        assert_eq!(info(argsz).ok().payload, words(&[56, 17, 5, 1, 0]), "{argsz}");
    }
    for argsz in [16, 19] {
        assert_eq!(info(argsz).ok().payload, words(&[56, 17, 5, 1]), "{argsz}");
    }
    assert_eq!(info(15).errno(), EINVAL);
    assert_eq!(client.call(GET_IRQ_INFO, &words(&[16, 0, 6, 0])).errno(), EINVAL);
    let reply = client.call(GET_IRQ_INFO, &words(&[4096, 0, 1, 7])).ok();
    assert_eq!(reply.payload, words(&[16, 0, 1, 0]), "others stay as they are");
}

#[test]
fn changes_are_signalled_plane_by_plane() {
    let server = Server::start(&["--personality", "gvt", "--mappable", "--display-events"]);
    let eventfd = eventfd();
    let mut client = listener(&server, &eventfd);
    assert_eq!(server.json("stats")["events_set"], true);
    assert_eq!(value(&eventfd), 0);
    for (command, signals) in [
        ("mode 640x480 buffers=3", PRIMARY_CHANGED),
        ("flip", PRIMARY_CHANGED),
        ("flip 0", PRIMARY_CHANGED),
        ("rect 0,0,8x8 ff0000", PRIMARY_CHANGED),
        ("pattern noise buffer=1", 0),
        ("pattern noise buffer=0", PRIMARY_CHANGED),
        ("plane off", PRIMARY_CHANGED),
        ("plane on", PRIMARY_CHANGED),
        ("cursor 64x64 3,4", CURSOR_CHANGED),
        ("cursor move 5,6", CURSOR_CHANGED),
        ("cursor off", CURSOR_CHANGED),
        ("guest", PRIMARY_CHANGED | CURSOR_CHANGED),
        ("state", 0),
    ] {
        server.ctl(command);
        assert_eq!(value(&eventfd), signals, "{command}");
    }
    client.guest_mode(640, 480);
    assert!(value(&eventfd) >= PRIMARY_CHANGED);
    client.write(0, 0, b"pixels").ok();
    assert_eq!(value(&eventfd), PRIMARY_CHANGED);
    server.ctl("mode 640x480 buffers=3");
    server.ctl("stats reset");
    server.ctl("run flips=10 rate=1000");
    server.ctl("wait");
    assert_eq!(value(&eventfd), 11 * PRIMARY_CHANGED, "signals add up");
    let stats = server.json("stats");
    assert_eq!((&stats["events_primary"], &stats["events_cursor"]), (&json!(10), &json!(0)));
    client.call(RESET, &[]).ok();
    value(&eventfd);
    server.ctl("flip");
    assert_eq!(value(&eventfd), PRIMARY_CHANGED, "it stays set over a reset");
}

#[test]
fn a_region_s_picture_is_signalled_too() {
    let server = Server::start(&["--personality", "nvidia", "--display-events"]);
    let eventfd = eventfd();
    let _client = listener(&server, &eventfd);
    server.ctl("mode 640x480");
    server.ctl("rect 0,0,8x8 ff0000");
    assert_eq!(value(&eventfd), 2 * PRIMARY_CHANGED);
}

#[test]
fn signals_end_when_the_client_says_so_or_goes() {
    let server = Server::start(&["--display-events"]);
    server.ctl("mode 640x480 buffers=2");
    let eventfd = eventfd();
    for end in [set_irqs(DATA_EVENTFD | TRIGGER, 0, 1), set_irqs(DATA_NONE | TRIGGER, 0, 0)] {
        let mut client = listener(&server, &eventfd);
        client.call(SET_IRQS, &end).ok();
        server.ctl("flip");
        assert_eq!((value(&eventfd), &server.json("stats")["events_set"]), (0, &json!(false)));
    }
    drop(listener(&server, &eventfd));
    // The next client is served once the previous one is gone.
    server.client();
    server.ctl("flip");
    assert_eq!(value(&eventfd), 0);
    assert_eq!(server.json("stats")["events_primary"], 0);
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let server = Server::start(&["--display-events"]);
    server.ctl("mode 640x480 buffers=2");
    let eventfd = rustix::event::eventfd(0, EventfdFlags::empty()).unwrap();
    let _client = listener(&server, &eventfd);
    rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    server.ctl("flip");
    assert_eq!(value(&eventfd), u64::MAX - 1);
}

#[test]
fn what_no_display_interrupt_can_be_set_to_is_einval() {
    let server = Server::start(&["--display-events"]);
    let mut client = server.client();
    let eventfd = eventfd();
    let set = set_irqs(DATA_EVENTFD | TRIGGER, 0, 1);
    let memory = File::open("/dev/null").unwrap();
    client.send_with_fds(SET_IRQS, &set, &[&memory]);
    assert_eq!(client.receive().unwrap().errno(), EINVAL, "no eventfd");
    client.send_with_fds(SET_IRQS, &set, &[&eventfd, &eventfd]);
    assert_eq!(client.receive().unwrap().errno(), EINVAL, "two descriptors");
    for (flags, start, count) in [
        (DATA_EVENTFD | TRIGGER, 1, 1),
        (DATA_EVENTFD | TRIGGER, 0, 2),
        (DATA_EVENTFD | TRIGGER, 0, 0),
        (DATA_EVENTFD | 8, 0, 1),
        (DATA_NONE | 8, 0, 1),
        (DATA_NONE | TRIGGER, 0, 1),
        (0, 0, 0),
    ] {
        let payload = set_irqs(flags, start, count);
        assert_eq!(client.call(SET_IRQS, &payload).errno(), EINVAL, "{flags} {start} {count}");
    }
    assert_eq!(client.call(SET_IRQS, &set[..19]).errno(), EINVAL);
    assert_eq!(server.json("stats")["events_set"], false);

    let server = Server::start(&[]);
    let mut client = server.client();
    client.send_with_fds(SET_IRQS, &set, &[&eventfd]);
    assert_eq!(client.receive().unwrap().errno(), EINVAL, "a device without events");
    assert_eq!(client.call(GET_IRQ_INFO, &words(&[4096, 0, 5, 0])).errno(), EINVAL);
}

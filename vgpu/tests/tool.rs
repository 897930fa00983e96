//! The command line, the control socket, and the scenes.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use common::*;
use serde_json::json;

#[test]
fn help_names_the_commands_and_errors_have_a_status() {
    let help = vgpu("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for word in ["serve", "ctl", "screenshot"] {
        assert!(text.contains(word), "{word}");
    }
    assert_eq!(vgpu("frob").output().unwrap().status.code(), Some(2));
    let output = vgpu("ctl").args(["--control", "/nonexistent", "state"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nonexistent"));
    let bad = ["--socket", "/tmp/a", "--control", "/tmp/b", "--vram", "15"];
    assert_eq!(vgpu("serve").args(bad).output().unwrap().status.code(), Some(2));
}

#[test]
fn signals_and_quit_remove_the_sockets() {
    for how in ["TERM", "INT", "quit"] {
        let mut server = Server::start(&[]);
        let _client = server.client();
        if how == "quit" {
            assert_eq!(server.ctl("quit"), "ok");
        } else {
            let signal = if how == "TERM" {
                rustix::process::Signal::TERM
            } else {
                rustix::process::Signal::INT
            };
            let pid = rustix::process::Pid::from_child(&server.child);
            rustix::process::kill_process(pid, signal).unwrap();
        }
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{how}");
        assert!(!exists(&server.dir.join("vfio")) && !exists(&server.control()), "{how}");
    }
}

#[test]
fn the_socket_is_open_to_whom_the_options_name() {
    let permissions = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.mode() & 0o777, metadata.gid())
    };
    // Only root may give a socket to a group that it is not in.
    let own = rustix::process::getegid().as_raw();
    let root = rustix::process::geteuid().is_root();
    let (group, gid) = if root { ("daemon".to_owned(), 1) } else { (own.to_string(), own) };
    for mode in ["660", "606"] {
        let server = Server::start(&["--socket-mode", mode, "--socket-group", &group]);
        let expected = u32::from_str_radix(mode, 8).unwrap();
        assert_eq!(permissions(&server.dir.join("vfio")), (expected, gid));
        let (mode, group) = permissions(&server.control());
        assert!(
            mode & 0o022 == 0 && group == own,
            "the control socket is not meant: {mode:o} {group}"
        );
    }
    let paths = ["--socket", "/tmp/a", "--control", "/tmp/b"];
    for (option, value, words) in [
        ("--socket-mode", "1777", "at most 777"),
        ("--socket-mode", "rw", "octal"),
        ("--socket-group", "no-such-group-here", "no such group"),
    ] {
        let output = vgpu("serve").args(paths).args([option, value]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(words), "{option} {value}");
    }
}

#[test]
fn stale_sockets_are_replaced_and_live_ones_and_files_are_not() {
    let server = Server::start(&[]);
    let serve = |socket: &str| {
        let output = vgpu("serve")
            .arg("--socket")
            .arg(server.dir.join(socket))
            .arg("--control")
            .arg(server.dir.join("other"))
            .stdout(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(serve("vfio").contains("another server"));
    std::fs::write(server.dir.join("file"), "precious").unwrap();
    assert!(serve("file").contains("not a socket"));
    assert_eq!(std::fs::read(server.dir.join("file")).unwrap(), b"precious");
    assert!(serve("no/such/dir").contains("cannot listen"));

    drop(UnixListener::bind(server.dir.join("stale")).unwrap());
    let mut child = vgpu("serve")
        .arg("--socket")
        .arg(server.dir.join("stale"))
        .arg("--control")
        .arg(server.dir.join("other"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listening"));
    UnixStream::connect(server.dir.join("stale")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_line_is_written_to_the_ready_descriptor() {
    let server = Server::start(&[]);
    // The shell opens descriptor 7 for the server, and waits for the line without it.
    let script = r#"{ "$VGPU" serve --socket v2 --control c2 --ready-fd 7 7>&1 >/dev/null & } | {
        IFS= read -r line && test -z "$line" && ! read -r line && test -S v2 -a -S c2 && echo ready
        "$VGPU" ctl --control c2 quit
    }"#;
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .env("VGPU", env!("CARGO_BIN_EXE_vgpu"))
        .current_dir(&server.dir)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\nok\n", "{output:?}");
}

#[test]
fn a_ready_descriptor_that_is_not_open_is_an_error() {
    let output = vgpu("serve")
        .args(["--socket", "/nonexistent/a", "--control", "/nonexistent/b", "--ready-fd", "99"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--ready-fd 99"));
}

#[test]
fn the_control_socket_answers_line_by_line() {
    let server = Server::start(&[]);
    let mut stream = UnixStream::connect(server.control()).unwrap();
    stream.write_all(b"mode 640x480\r\nfrob\n\n  state  \n\xff\nplane off").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answers: Vec<String> = BufReader::new(stream).lines().map(Result::unwrap).collect();
    assert_eq!(answers[0], "ok");
    assert!(answers[1].starts_with("error no command 'frob' (one of mode, "), "{}", answers[1]);
    assert!(answers[2].starts_with("error no command"), "{}", answers[2]);
    assert!(answers[3].starts_with("ok {"), "{}", answers[3]);
    assert_eq!(answers[4..], ["error the command is not UTF-8", "ok"]);
    assert_eq!(server.json("state")["plane"], "off", "the last line needs no end");
}

#[test]
fn commands_refuse_what_they_cannot_do() {
    let server = Server::start(&[]);
    server.ctl("mode 640x480 buffers=2");
    for (command, message) in [
        ("mode 0x480", "sides are 1 to 16384"),
        ("mode 640", "not WIDTHxHEIGHT"),
        ("mode 640x480 fourcc=NV12", "not known"),
        ("mode 640x480 stride=2558", "stride 2558"),
        ("mode 640x480 stride=2559", "stride 2559"),
        ("mode 641x480 fourcc=YUYV", "even width"),
        ("mode 640x480 buffers=0", "buffers=0"),
        ("mode 16384x16384 buffers=2", "limit"),
        ("mode 16384x16384 stride=4294967292", "4 GiB"),
        ("mode 640x480 depth=3", "no option 'depth'"),
        ("mode 640x480 now", "'now' is one word too many"),
        ("pattern plaid", "no pattern"),
        ("pattern bars buffer=2", "no such buffer"),
        ("rect 1,2 ff0000", "not X,Y,WIDTHxHEIGHT"),
        ("rect 1,2,3x4 red", "6 hexadecimal digits"),
        ("flip 2", "there are 2"),
        ("cursor 64x64 0,0", "mbochs has no cursor plane"),
        ("plane sideways", "on or off"),
        ("run rate=10", "flips=N is missing"),
        ("run flips=1 rate=0", "not a rate"),
        ("scene opera", "no scene"),
        ("scene block seconds=1 frames=1", "exclude"),
        ("on-reset panic", "keep, off or guest"),
        ("shrink-buffer", "is missing"),
        ("screenshot", "name is missing"),
        ("screenshot /nonexistent/x.png", "cannot write /nonexistent/x.png"),
    ] {
        let error = server.ctl_error(command);
        assert!(error.contains(message), "{command}: {error}");
    }
    assert_eq!(server.json("state")["mode"], "640x480", "nothing has changed");
    server.ctl("guest");
    assert!(server.ctl_error("flip").contains("set a mode first"));
    assert!(server.ctl_error("pattern bars").contains("the plane is off"));
}

#[test]
fn a_screenshot_of_a_plane_that_is_off_is_an_error() {
    let server = Server::start(&[]);
    assert!(server.screenshot(&[]).unwrap_err().contains("the plane is off"));
    assert!(!exists(&server.dir.join("shot.png")));
}

#[test]
fn screenshots_show_every_format() {
    let server = Server::start(&[]);
    for format in ["XR24", "AR24", "XB24", "AB24", "RG16", "XR30", "AR30", "XB30", "AB30"] {
        server.ctl(&format!("mode 100x80 fourcc={format} stride=480"));
        server.ctl("pattern solid:ff0000");
        server.ctl("rect 10,20,30x5 00ff00");
        let (width, height, pixels) = server.screenshot(&[]).unwrap();
        assert_eq!((width, height), (100, 80));
        for (i, pixel) in pixels.chunks(3).enumerate() {
            let inside = (10..40).contains(&(i % 100)) && (20..25).contains(&(i / 100));
            let expected = if inside { [0, 255, 0] } else { [255, 0, 0] };
            assert_eq!(pixel, expected, "{format}, pixel {i}");
        }
    }
}

#[test]
fn a_run_flips_as_often_as_told_and_leaves_stamps() {
    let server = Server::start(&[]);
    server.ctl("mode 320x200 buffers=3");
    for draw in ["none", "block", "line", "full"] {
        server.ctl("stats reset");
        server.ctl(&format!("run flips=20 rate=500 draw={draw}"));
        server.ctl("wait");
        assert_eq!(server.json("stats")["flips"], 20, "{draw}");
        let state = server.json("state");
        assert_eq!(state["last_scene"], json!({ "frames": 20, "stopped": false }));
        assert_eq!(state["scene"], false);
    }
    let stamps = server.json("stamps");
    let stamps: Vec<[u64; 4]> = serde_json::from_value(stamps).unwrap();
    assert!(stamps.len() >= 80);
    assert!(stamps.windows(2).all(|s| s[0][0] + 1 == s[1][0] && s[0][2] < s[1][2]));
}

#[test]
fn stamps_know_the_ids_that_the_client_saw() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    server.ctl("mode 320x200 buffers=2");
    let mut client = server.client();
    let first = client.query(DMABUF, PRIMARY).ok().u32(56);
    server.ctl("flip");
    let second = client.query(DMABUF, PRIMARY).ok().u32(56);
    let stamps: Vec<[u64; 4]> = serde_json::from_value(server.json("stamps")).unwrap();
    let ids: Vec<u64> = stamps.iter().map(|s| s[1]).collect();
    assert_eq!(ids, [u64::from(first), u64::from(second)]);
}

#[test]
fn a_stamp_tells_when_its_flip_was_seen_if_it_was() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    server.ctl("mode 320x200 buffers=3");
    let mut client = server.client();
    server.ctl("flip");
    client.query(DMABUF, CURSOR).ok();
    client.query(DMABUF, PRIMARY).ok();
    client.query(DMABUF, PRIMARY).ok();
    server.ctl("flip");
    client.query(DMABUF, CURSOR).ok();
    let stamps: Vec<[u64; 4]> = serde_json::from_value(server.json("stamps")).unwrap();
    let [[.., mode, 0], [.., flip, seen], [.., last, 0]] = stamps[..] else {
        panic!("only the first flip was seen: {stamps:?}")
    };
    assert!(mode < flip && flip < seen && seen < last, "{stamps:?}");
}

#[test]
fn a_mark_is_the_number_of_the_stamp() {
    for personality in ["gvt", "nvidia"] {
        let server = Server::start(&["--personality", personality, "--mappable"]);
        server.ctl("mode 320x200 buffers=2");
        for _ in 0..2 {
            server.ctl("run flips=150 rate=10000 draw=mark");
            server.ctl("wait");
            let stamps: Vec<[u64; 4]> = serde_json::from_value(server.json("stamps")).unwrap();
            let (_, _, pixels) = server.screenshot(&[]).unwrap();
            let mark = pixels[..3].iter().fold(0, |mark, byte| (mark << 8) | u64::from(*byte));
            assert_eq!(mark, stamps.last().unwrap()[0]);
            assert_eq!(pixels[64 * 3..65 * 3], [0, 0, 0], "beside the mark");
        }
    }
}

#[test]
fn a_mark_drawn_in_place_is_the_number_of_its_stamp() {
    for personality in ["gvt", "nvidia"] {
        let server = Server::start(&["--personality", personality]);
        server.ctl("mode 320x200 buffers=2");
        server.ctl("scene mark rate=10000 frames=150");
        server.ctl("wait");
        let stamps: Vec<[u64; 4]> = serde_json::from_value(server.json("stamps")).unwrap();
        // The mode, and each drawing.
        assert_eq!(stamps.len(), 151);
        assert!(stamps.windows(2).all(|pair| pair[0][2] <= pair[1][2]), "{stamps:?}");
        let (_, _, pixels) = server.screenshot(&[]).unwrap();
        let mark = pixels[..3].iter().fold(0, |mark, byte| (mark << 8) | u64::from(*byte));
        assert_eq!(mark, stamps[150][0]);
        assert_eq!(pixels[64 * 3..65 * 3], [0, 0, 0], "beside the mark");
        assert_eq!(server.json("stats")["flips"], 0, "drawn in place");
    }
}

#[test]
fn scenes_change_the_picture_and_stop() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    for scene in ["flips", "block", "typing", "video", "random"] {
        server.ctl("mode 320x200 buffers=2");
        server.ctl("pattern checker");
        let before = server.screenshot(&[]).unwrap();
        server.ctl(&format!("scene {scene} rate=500 frames=40 seed=3"));
        server.ctl("wait");
        assert_eq!(server.json("state")["last_scene"]["frames"], 40, "{scene}");
        assert!(server.screenshot(&[]).ok() != Some(before), "{scene}");
    }
    server.ctl("mode 320x200");
    server.ctl("pattern checker");
    let before = server.screenshot(&[]).unwrap();
    server.ctl("scene static");
    assert_eq!(server.json("state")["scene"], true);
    server.ctl("stop");
    assert_eq!(server.json("state")["scene"], false);
    assert!(server.screenshot(&[]).unwrap() == before);
}

#[test]
fn a_cursor_moves_on_its_own() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    server.ctl("mode 320x200");
    assert!(server.ctl_error("scene cursor").contains("no cursor to move"));
    server.ctl("cursor 64x64 0,0");
    server.ctl("scene cursor rate=500 frames=10 seed=1");
    server.ctl("wait");
    let cursor = server.json("state")["cursor"].clone();
    assert_eq!((&cursor["x"], &cursor["y"]), (&json!(70), &json!(30)));
}

#[test]
fn every_query_can_see_another_buffer() {
    for (personality, flags) in [("mbochs", DMABUF), ("gvt", DMABUF), ("nvidia", REGION)] {
        let server = Server::start(&["--personality", personality, "--mappable"]);
        server.ctl("mode 320x200 buffers=3");
        server.ctl("flip-on-query on");
        let mut client = server.client();
        let mut ids = Vec::new();
        while ids.len() < 9 {
            let reply = client.query(flags, PRIMARY);
            if reply.error != ENOMEM {
                let id = reply.ok().u32(56);
                if flags == DMABUF {
                    client.get(id).ok();
                }
                ids.push(id);
            }
        }
        if flags == DMABUF && personality == "mbochs" {
            assert_eq!(ids, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
        }
        server.ctl("flip-on-query off");
        client.query(flags, PRIMARY);
        assert_eq!(server.json("stats")["flips"], 9, "{personality}");
    }
}

#[test]
fn fresh_buffers_do_not_add_up() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    server.ctl("mode 320x200 buffers=2");
    let mut client = server.client();
    client.query_primary().ok();
    let before = server.descriptors();
    for round in 0..5 {
        server.ctl("run flips=50 rate=5000 fresh");
        server.ctl("wait");
        let id = client.query_primary().ok().u32(56);
        client.get(id).ok();
        // A few come and go with the commands.
        assert!(server.descriptors() <= before + 5, "round {round}");
    }
    assert!(server.json("stats")["ids"].as_array().unwrap().len() <= 2);
}

#[test]
fn a_random_scene_is_the_same_for_the_same_seed() {
    let picture = |seed: u32| {
        let server = Server::start(&["--personality", "gvt", "--mappable"]);
        server.ctl(&format!("scene random rate=1000 frames=60 seed={seed}"));
        server.ctl("wait");
        server.ctl("plane on");
        server.screenshot(&[]).unwrap()
    };
    assert!(picture(1) == picture(1));
    assert!(picture(1) != picture(2));
}

//! Faults on request: what a client sees of each.

mod common;

use common::*;
use serde_json::json;

#[test]
fn errno_hits_the_call_as_often_as_told() {
    let server = Server::start(&[]);
    server.ctl("mode 640x480");
    let mut client = server.client();
    client.query_primary().ok();
    server.ctl("fault get errno EIO count=2");
    assert_eq!(client.get(1).errno(), EIO);
    assert_eq!(client.get(1).errno(), EIO);
    client.get(1).ok();
    server.ctl("fault query errno 99");
    for _ in 0..3 {
        assert_eq!(client.query(DMABUF, PRIMARY).errno(), 99);
    }
    assert_eq!(server.json("fault list")[0]["call"], "query");
    server.ctl("fault clear");
    client.query(DMABUF, PRIMARY).ok();
    assert_eq!(server.json("stats")["faults"], 5);
}

#[test]
fn the_reset_can_fail_and_then_does_nothing() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.guest_mode(640, 480);
    server.ctl("fault reset errno EBUSY");
    assert_eq!(client.call(RESET, &[]).errno(), 16);
    assert_eq!(server.json("state")["plane"], "on");
}

#[test]
fn silence_swallows_one_call_and_the_next_is_answered() {
    let server = Server::start(&[]);
    let mut client = server.client();
    server.ctl("fault query silence count=1");
    client.send(QUERY, 0, &plane_info(&[(0, 64), (4, DMABUF), (8, PRIMARY)]));
    client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
    client.query(DMABUF, PRIMARY).ok();
}

#[test]
fn a_delayed_answer_comes_in_its_turn() {
    let server = Server::start(&[]);
    let mut client = server.client();
    server.ctl("fault query delay 100 count=1");
    let first = client.send(QUERY, 0, &plane_info(&[(0, 64), (4, DMABUF), (8, PRIMARY)]));
    let second = client.send(GET_INFO, 0, &words(&[16, 0, 0, 0]));
    assert_eq!(client.receive().unwrap().ok().id, first);
    assert_eq!(client.receive().unwrap().ok().id, second);
    assert_eq!(server.json("stats")["faults"], 1);
}

#[test]
fn sizes_and_descriptors_can_be_wrong() {
    let server = Server::start(&["--memfd"]);
    server.ctl("mode 640x480");
    let mut client = server.client();
    client.query_primary().ok();
    for (delta, expected) in [(-4, 60), (8, 72), (-100, 0)] {
        server.ctl(&format!("fault query size {delta} count=1"));
        assert_eq!(client.query(DMABUF, PRIMARY).ok().payload.len(), expected);
    }
    server.ctl("fault get no-fd count=1");
    assert!(client.get(1).ok().fds.is_empty());
    server.ctl("fault get extra-fd count=1");
    assert_eq!(client.get(1).ok().fds.len(), 2);
    server.ctl("fault get unreadable count=1");
    let fd = client.get(1).ok().fds.remove(0);
    assert!(rustix::io::pread(&fd, &mut [0; 4], 0).is_err());
    assert!(rustix::io::pwrite(&fd, &[0; 4], 0).is_ok(), "it is the buffer");
    assert!(rustix::io::pread(&client.get(1).ok().fds[0], &mut [0; 4], 0).is_ok());
    server.ctl("fault region_info no-fd index=0 count=1");
    client.region_info(2, 32).ok();
    assert!(client.region_info(0, 32).ok().fds.is_empty());
    assert_eq!(client.region_info(0, 32).ok().fds.len(), 1);
    // Descriptors travel with data, so an answer without payload still carries its own.
    server.ctl("fault get size -16 count=1");
    let reply = client.get(1).ok();
    assert_eq!((reply.payload.len(), reply.fds.len()), (0, 1));
}

#[test]
fn a_hangup_ends_the_connection_and_the_next_client_is_served() {
    let server = Server::start(&[]);
    let mut client = server.client();
    server.ctl("fault any hangup count=1");
    client.send(GET_INFO, 0, &words(&[16, 0, 0, 0]));
    assert!(client.receive().is_none());
    server.client().call(GET_INFO, &words(&[16, 0, 0, 0])).ok();
}

#[test]
fn answers_can_lie() {
    let server = Server::start(&["--personality", "gvt", "--mappable"]);
    server.ctl("mode 640x480");
    server.ctl("cursor 64x64 0,0");
    let mut client = server.client();
    let honest = client.query(DMABUF, PRIMARY).ok().payload;
    server.ctl("fault query set width=0,stride=0xffffffff,drm_format=ZZ99,drm_format_mod=0x100000000000009 plane=primary");
    let lie = client.query(DMABUF, PRIMARY).ok();
    assert_eq!((lie.u32(24), lie.u32(32), lie.u64(16)), (0, u32::MAX, 0x0100_0000_0000_0009));
    assert_eq!(lie.payload[12..16], *b"ZZ99");
    assert_eq!(lie.u32(28), 480, "what was not named is honest");
    assert_eq!(client.query(DMABUF, CURSOR).ok().u32(24), 64);
    server.ctl("fault clear");
    assert_eq!(client.query(DMABUF, PRIMARY).ok().payload, honest);
    server.ctl("fault region_info set size=0x100000000,flags=3 index=0");
    let info = client.region_info(0, 32).ok();
    assert_eq!((info.u64(16), info.u32(4)), (1 << 32, 3));
    server.ctl("fault device_info set num_regions=200");
    assert_eq!(client.call(GET_INFO, &words(&[16, 0, 0, 0])).ok().u32(8), 200);
    server.ctl("fault edid_read set data=7");
    assert_eq!(client.data(9, 4, 4), [7, 0, 0, 0]);
}

#[test]
fn edid_accesses_fail_apart_from_others() {
    let server = Server::start(&[]);
    let mut client = server.client();
    server.ctl("fault edid_read errno EIO");
    server.ctl("fault edid_write errno EFAULT");
    assert_eq!(client.read(9, 0, 4).errno(), EIO);
    assert_eq!(client.write(9, 8, &[0; 4]).errno(), EFAULT);
    client.read(7, 0, 4).ok();
    client.write(7, 4, &[0; 2]).ok();
    server.ctl("fault region_read errno ENOMEM index=7");
    assert_eq!(client.read(7, 0, 4).errno(), ENOMEM);
    client.read(0, 0, 4).ok();
}

#[test]
fn a_race_fails_one_get_and_shows_another_buffer() {
    for (personality, errno) in [("mbochs", ENOENT), ("gvt", EINVAL)] {
        let server = Server::start(&["--personality", personality, "--mappable"]);
        server.ctl("mode 640x480 buffers=2");
        let mut client = server.client();
        let before = client.query_primary().ok().u32(56);
        server.ctl("fault get id-race");
        assert_eq!(client.get(before).errno(), errno);
        let after = client.query_primary().ok().u32(56);
        assert_ne!(before, after);
        client.get(after).ok();
        assert_eq!(server.json("state")["shown"], 1);
    }
}

#[test]
fn buffers_shrink_only_when_unsealed() {
    let server = Server::start(&[]);
    server.ctl("mode 640x480");
    assert!(server.ctl_error("shrink-buffer 4096").contains("--unsealed"));

    let server = Server::start(&["--unsealed"]);
    server.ctl("mode 640x480");
    let mut client = server.client();
    client.query_primary().ok();
    let fd = client.get(1).ok().fds.remove(0);
    assert_eq!(file_size(&fd), 640 * 480 * 4);
    server.ctl("shrink-buffer 4096");
    assert_eq!(file_size(&fd), 4096);
    assert!(server.screenshot(&[]).unwrap_err().contains("cannot read"));
    assert!(server.ctl_error("pattern bars").contains("cannot draw"));
    assert_eq!(file_size(&fd), 4096, "drawing does not make it grow");
    server.ctl("shrink-buffer 1228800");
    server.ctl("pattern bars");
    assert_eq!(server.screenshot(&[]).unwrap().0, 640);

    let server = Server::start(&["--unsealed", "--personality", "nvidia"]);
    server.ctl("mode 640x480");
    let region = server.client().region_info(9, 32).ok().fds.remove(0);
    server.ctl("shrink-buffer 0");
    assert_eq!(file_size(&region), 0);

    // What the guest shows is off then, and comes back. The display region is BAR 0.
    let server = Server::start(&["--unsealed", "--personality", "mdpy"]);
    let region = server.client().region_info(0, 32).ok().fds.remove(0);
    let whole = file_size(&region);
    server.ctl("shrink-buffer 0");
    server.ctl(&format!("shrink-buffer {whole}"));
    assert_eq!(file_size(&region), whole);
}

#[test]
fn a_bad_fault_is_refused() {
    let server = Server::start(&[]);
    assert!(server.ctl_error("fault query frob").contains("no fault 'frob'"));
    assert_eq!(server.json("fault list"), json!([]));
}

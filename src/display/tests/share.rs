//! Sharing the scanout with other devices of the VM.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use uuid::Uuid;

use crate::capi::shared_objects::duplicate;
use crate::config::Config;
use crate::device::Mode;
use crate::display::ShareError;
use crate::plane::PlaneInfo;
use crate::pool::Limits;
use crate::shared_objects::{LookupError, SharedObjects};
use crate::testing::{FakeDevice, Fixture, plane};

use super::{dma_buf_device, region};

fn share() -> Config {
    Config { share: true, pool: Limits { count: 2, bytes: 1 << 20 }, ..Config::default() }
}

fn sharing(device: &FakeDevice) -> Fixture {
    Fixture::new(Mode::DmaBuf, share(), device)
}

/// Returns the first byte of the file that others find by this UUID.
fn found(uuid: Uuid) -> Result<u8, LookupError> {
    let fd = duplicate(SharedObjects::global(), uuid, Duration::ZERO)?.unwrap();
    let mut byte = [0];
    File::from(fd).read_exact_at(&mut byte, 0).unwrap();
    Ok(byte[0])
}

#[test]
fn nothing_is_shared_unless_the_user_says_so() {
    let mut fixture = Fixture::new(Mode::DmaBuf, Config::default(), &dma_buf_device());
    fixture.refresh();
    assert!(matches!(fixture.display().share_scanout(), Err(ShareError::Off)));
}

#[test]
fn others_find_the_picture_also_when_nobody_looks_at_the_console() {
    let mut fixture = sharing(&dma_buf_device());
    let uuid = fixture.display().share_scanout().unwrap();
    assert_eq!(found(uuid), Ok(0x11));
}

#[test]
fn a_buffer_keeps_its_uuid_and_another_has_another() {
    let mut fixture = sharing(&dma_buf_device());
    fixture.refresh();
    let one = fixture.display().share_scanout().unwrap();
    assert_eq!(fixture.display().share_scanout().unwrap(), one);
    fixture.device.show(plane(2, 32, 16), 0x22);
    let two = fixture.display().share_scanout().unwrap();
    assert_ne!(one, two);
    assert_eq!((found(one), found(two)), (Ok(0x11), Ok(0x22)));
    fixture.device.set().primary = plane(1, 32, 16);
    assert_eq!(fixture.display().share_scanout().unwrap(), one);
    assert_eq!(fixture.device.take_gets(), [1, 2]);
}

#[test]
fn the_uuid_goes_with_the_buffer() {
    let mut fixture = sharing(&dma_buf_device());
    let evicted = fixture.display().share_scanout().unwrap();
    for id in 2..=4 {
        fixture.device.show(plane(id, 32, 16), 0x22);
        fixture.refresh();
    }
    assert_eq!(found(evicted), Err(LookupError::Unknown(evicted)));

    let reset = fixture.display().share_scanout().unwrap();
    fixture.display().reset();
    assert_eq!(found(reset), Err(LookupError::Unknown(reset)));

    let ended = fixture.display().share_scanout().unwrap();
    assert_eq!(found(ended), Ok(0x22));
    fixture.end();
    assert_eq!(found(ended), Err(LookupError::Unknown(ended)));
}

#[test]
fn sharing_leaves_no_descriptor_open() {
    let mut fixture = sharing(&dma_buf_device());
    let files = fixture.device.files().clone();
    fixture.display().share_scanout().unwrap();
    assert_eq!(files.open_descriptors(), 3, "the device's, the pool's and the table's");
    fixture.display().reset();
    assert_eq!(files.open_descriptors(), 1, "the device's own");
}

#[test]
fn what_cannot_be_shared_says_why() {
    let mut fixture = region();
    assert!(matches!(fixture.display().share_scanout(), Err(ShareError::Off)));
    let device = dma_buf_device();
    let mut fixture = Fixture::new(Mode::Region, share(), &device);
    assert!(matches!(fixture.display().share_scanout(), Err(ShareError::Region)));
    let mut fixture = sharing(&device);
    device.set().primary = PlaneInfo::default();
    assert!(matches!(fixture.display().share_scanout(), Err(ShareError::NoPlane)));
    device.set().primary = plane(9, 32, 16);
    let error = fixture.display().share_scanout().unwrap_err();
    assert!(error.to_string().contains('9'), "{error}");
}

//! Modes in which a driver is known to show nothing: NVIDIA's R535 gives only zeros for pictures
//! that are not a whole number of pages.
//!
//! A guest may just be black, and there is no telling the difference. So this is logged for
//! NVIDIA's devices only, once per mode, if there was nothing but zeros from its beginning on, for
//! longer than a guest takes to draw its first picture.

use std::time::Duration;

use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;

use crate::damage::Picture;
use crate::device::Device;
use crate::plane::Geometry;

const NVIDIA: u16 = 0x10de;
const PAGE: u64 = 4096;

/// How long a guest may be black after a mode set.
pub const BLACK: Duration = Duration::from_secs(10);

/// What is known of the pictures of an NVIDIA device.
#[derive(Debug, Default)]
pub struct Blanks {
    mode: Option<Geometry>,
    /// When the mode was first polled, until a picture was seen.
    since: Option<Duration>,
}

impl Blanks {
    /// Returns `None` if the device is not NVIDIA's, by its PCI vendor.
    pub fn of(device: &impl Device) -> Option<Self> {
        let mut vendor = [0; 2];
        device.read_region(VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut vendor).ok()?;
        (u16::from_le_bytes(vendor) == NVIDIA).then(Self::default)
    }

    /// Notes a picture, and whether it has changed since the last one. Returns whether the driver
    /// seems not to show this mode.
    pub fn note(
        &mut self,
        geometry: &Geometry,
        picture: &Picture,
        changed: bool,
        now: Duration,
    ) -> bool {
        if self.mode != Some(*geometry) {
            let bytes = u64::from(geometry.stride) * u64::from(geometry.height);
            self.mode = Some(*geometry);
            self.since = (bytes % PAGE != 0).then_some(now);
        }
        let Some(since) = self.since else { return false };
        let lasts = now.saturating_sub(since) >= BLACK;
        if !changed && !lasts {
            return false;
        }
        let blank = picture.pixels.iter().all(|byte| *byte == 0);
        if lasts || !blank {
            self.since = None;
        }
        blank && lasts
    }
}

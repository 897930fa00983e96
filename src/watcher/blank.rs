//! Modes in which a driver is known to show nothing: NVIDIA's R535 gives only zeros of pictures that are no whole number of pages.
//!
//! A guest may be black, and nothing tells the one from the other. So this is said of NVIDIA's devices only, once for each mode, when there
//! was nothing but zeros from its beginning on, for longer than a guest takes to draw its first picture.

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
    /// When it was first looked at, until more is known of it.
    since: Option<Duration>,
}

impl Blanks {
    /// `None` if nothing is known of such a device. Asks it who made it.
    pub fn of(device: &impl Device) -> Option<Self> {
        let mut vendor = [0; 2];
        device.read_region(VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut vendor).ok()?;
        (u16::from_le_bytes(vendor) == NVIDIA).then(Self::default)
    }

    /// Takes note of a picture, and of whether it has changed since the last one. Returns whether the driver does not show this mode, as it
    /// seems.
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

//! The kernel's `samples/vfio-mdev/mdpy.c`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Identity, Personality, Traits, Truncation, describe, plane_query};
use crate::memory::Memory;
use crate::protocol::PlaneInfo;
use crate::screen::Planes;

/// Far beyond the regions that the device claims to have.
const REGION: u32 = 16;

/// The region is BAR 0 under another index.
#[derive(Debug)]
pub struct Mdpy {
    vram: Arc<Memory>,
}

impl Mdpy {
    pub fn new(vram: Arc<Memory>) -> Self {
        Self { vram }
    }
}

impl Personality for Mdpy {
    fn traits(&self) -> Traits {
        Traits {
            identity: Identity {
                vendor: 0x1b36,
                device: 0x000f,
                revision: 0,
                mode_capability: true,
            },
            dispi: false,
            edid: None,
            edid_max: (0, 0),
            truncation: Truncation::ZeroesOffset,
            region_info_argsz_max: u32::MAX,
            has_cursor: false,
            pitch_align: 1,
        }
    }

    fn query(&mut self, request: &PlaneInfo, planes: &Planes<'_>) -> Result<PlaneInfo, Errno> {
        // The type of the plane does not matter.
        if plane_query(request, PlaneInfo::REGION)?.is_none() {
            return Ok(*request);
        }
        let Some(picture) = &planes.primary else { return Ok(request.without_plane()) };
        // The reported size is that of the memory, not that of the plane.
        let info =
            describe(request, &picture.geometry, planes.reported_width, self.vram.capacity());
        Ok(PlaneInfo { handle: REGION, ..info })
    }

    fn get(&mut self, _: u32, _: &Planes<'_>) -> Result<OwnedFd, Errno> {
        // The driver has no such call.
        Err(Errno::NOTTY)
    }

    fn unknown_id(&self) -> Errno {
        Errno::NOTTY
    }

    fn region(&self) -> Option<(u32, Arc<Memory>)> {
        Some((REGION, self.vram.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_probes, planes, request, screen};
    use super::*;

    fn mdpy() -> Mdpy {
        Mdpy::new(Arc::new(Memory::new("vram", 4 << 20, true).unwrap()))
    }

    #[test]
    fn offers_the_region_only() {
        check_probes(&mut mdpy(), PlaneInfo::REGION);
    }

    #[test]
    fn any_plane_is_the_primary_and_the_size_is_the_memorys() {
        let (mut mdpy, screen) = (mdpy(), screen(640, 480, 1));
        for plane in 0..4 {
            let info = mdpy.query(&request(PlaneInfo::REGION, plane), &planes(&screen)).unwrap();
            assert_eq!((info.width, info.handle, info.size), (640, 16, 4 << 20));
        }
    }

    #[test]
    fn the_region_is_bar_0() {
        let mdpy = mdpy();
        let (index, memory) = mdpy.region().unwrap();
        assert_eq!((index, memory.serial()), (16, mdpy.vram.serial()));
    }
}

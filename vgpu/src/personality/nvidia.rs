//! NVIDIA's vGPU, as far as its users' reports tell: a display region that the host driver copies
//! the screen to.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::{BOCHS, Personality, Traits, Truncation, describe, errno, plane_query};
use crate::memory::Memory;
use crate::protocol::PlaneInfo;
use crate::screen::{Driver, Geometry, Planes};

/// One beyond the regions that the device claims to have.
const REGION: u32 = 9;

const REGION_SIZE: u64 = 16 << 20;

const PITCH_ALIGN: u32 = 128;

/// The region has memory of its own. What the guest shows is copied to it at each query.
#[derive(Debug)]
pub struct Nvidia {
    memory: Arc<Memory>,
}

impl Nvidia {
    pub fn new(vram: &Memory, sealed: bool) -> io::Result<Self> {
        let memory = Memory::new("vgpu-display-region", REGION_SIZE.max(vram.capacity()), sealed)?;
        Ok(Self { memory: Arc::new(memory) })
    }
}

impl Personality for Nvidia {
    fn traits(&self) -> Traits {
        Traits {
            identity: BOCHS,
            dispi: true,
            edid: None,
            edid_max: (0, 0),
            truncation: Truncation::ZeroesOffset,
            region_info_argsz_max: u32::MAX,
            has_cursor: false,
            pitch_align: PITCH_ALIGN,
        }
    }

    fn query(&mut self, request: &PlaneInfo, planes: &Planes<'_>) -> Result<PlaneInfo, Errno> {
        if plane_query(request, PlaneInfo::REGION)?.is_none() {
            return Ok(*request);
        }
        let Some(picture) = &planes.primary else { return Ok(request.without_plane()) };
        let mut geometry = picture.geometry;
        if planes.screen.driver == Driver::Guest {
            let stride = geometry.row_bytes().next_multiple_of(PITCH_ALIGN);
            geometry = Geometry { stride, ..geometry };
            picture.copy_to(&self.memory, stride).map_err(|e| errno(&e))?;
        }
        let info = describe(request, &geometry, planes.reported_width, geometry.bytes());
        Ok(PlaneInfo { handle: REGION, ..info })
    }

    fn get(&mut self, _: u32, _: &Planes<'_>) -> Result<OwnedFd, Errno> {
        Err(Errno::INVAL)
    }

    fn region(&self) -> Option<(u32, Arc<Memory>)> {
        Some((REGION, self.memory.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_probes, geometry, planes, request, screen};
    use super::*;
    use crate::screen::{Picture, Screen};

    fn vram() -> Arc<Memory> {
        Arc::new(Memory::new("vram", 4 << 20, true).unwrap())
    }

    #[test]
    fn offers_the_region_only() {
        check_probes(&mut Nvidia::new(&vram(), true).unwrap(), PlaneInfo::REGION);
    }

    #[test]
    fn the_region_has_index_9_and_at_least_16_mib() {
        let mut nvidia = Nvidia::new(&vram(), true).unwrap();
        let (index, memory) = nvidia.region().unwrap();
        assert_eq!((index, memory.len()), (9, 16 << 20));
        let screen = screen(640, 480, 1);
        let info = nvidia.query(&request(PlaneInfo::REGION, 0), &planes(&screen)).unwrap();
        assert_eq!((info.handle, info.stride, info.size), (9, 2560, 2560 * 480));
        assert_eq!(nvidia.get(9, &planes(&screen)).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn the_guests_picture_is_copied_with_an_aligned_pitch() {
        let (vram, screen) = (vram(), Screen::new());
        let mut nvidia = Nvidia::new(&vram, true).unwrap();
        let picture = Picture { geometry: geometry(100, 64), memory: vram.clone(), offset: 4096 };
        vram.write(4096 + 400, b"second row").unwrap();
        let planes = Planes { primary: Some(picture), reported_width: 100, screen: &screen };
        let info = nvidia.query(&request(PlaneInfo::REGION, 0), &planes).unwrap();
        assert_eq!((info.stride, info.size), (512, 512 * 64));
        let mut seen = [0; 10];
        nvidia.memory.read(512, &mut seen).unwrap();
        assert_eq!(&seen, b"second row");
    }
}

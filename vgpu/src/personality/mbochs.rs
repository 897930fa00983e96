//! The kernel's `samples/vfio-mdev/mbochs.c`.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{BOCHS, Personality, Traits, Truncation, describe, errno, plane_query};
use crate::export::{Access, Export, Exporter};
use crate::hardware::edid;
use crate::memory::PAGE;
use crate::protocol::PlaneInfo;
use crate::screen::{Place, Planes};

/// Ids count up from 1 for ever; each stands for its buffer until the device is closed.
#[derive(Debug)]
pub struct Mbochs {
    exporter: Exporter,
    exports: Vec<(u32, Export)>,
    next_id: u32,
    edid_max: (u32, u32),
    access: Access,
}

impl Mbochs {
    /// The driver itself opens its dma-bufs read-only, so that a software renderer cannot map them
    /// to import them.
    pub fn new(exporter: Exporter, vram: u64, access: Access) -> Self {
        // The three types that the driver offers.
        let edid_max = match vram >> 20 {
            0..=4 => (800, 600),
            5..=16 => (1920, 1440),
            _ => (0, 0),
        };
        Self { exporter, exports: Vec::new(), next_id: 1, edid_max, access }
    }
}

impl Personality for Mbochs {
    fn traits(&self) -> Traits {
        Traits {
            identity: BOCHS,
            dispi: true,
            edid: Some(edid::PLAIN),
            edid_max: self.edid_max,
            truncation: Truncation::KeepsOffset,
            region_info_argsz_max: 48,
            has_cursor: false,
            pitch_align: 1,
        }
    }

    fn query(&mut self, request: &PlaneInfo, planes: &Planes<'_>) -> Result<PlaneInfo, Errno> {
        let Some(plane) = plane_query(request, PlaneInfo::DMABUF)? else { return Ok(*request) };
        let picture = match &planes.primary {
            Some(picture) if plane == PlaneInfo::PRIMARY => picture,
            _ => return Ok(request.without_plane()),
        };
        let Some((id, export)) = self.exports.iter().find(|(_, e)| e.picture.is(picture)) else {
            // The driver makes the buffer, forgets to take note of it, and complains that there is
            // none.
            let export = self.exporter.export(picture).map_err(|_| Errno::NOMEM)?;
            self.exports.push((self.next_id, export));
            self.next_id = self.next_id.wrapping_add(1);
            return Err(Errno::NOMEM);
        };
        export.refresh().map_err(|e| errno(&e))?;
        let geometry = &picture.geometry;
        Ok(PlaneInfo {
            handle: *id,
            ..describe(request, geometry, planes.reported_width, geometry.bytes())
        })
    }

    fn get(&mut self, id: u32, _: &Planes<'_>) -> Result<OwnedFd, Errno> {
        let (_, export) = self.exports.iter().find(|(i, _)| *i == id).ok_or(Errno::NOENT)?;
        if export.picture.offset % PAGE != 0 {
            return Err(Errno::INVAL);
        }
        export.descriptor(self.access, false).map_err(|e| errno(&e))
    }

    fn unknown_id(&self) -> Errno {
        Errno::NOENT
    }

    fn closed(&mut self) {
        self.exports.clear();
    }

    fn ids(&self) -> Vec<(u32, bool)> {
        self.exports.iter().map(|(id, export)| (*id, export.held())).collect()
    }

    fn id_of(&self, picture: &Place) -> Option<u32> {
        self.exports.iter().find(|(_, e)| e.picture.place() == *picture).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_probes, flip, geometry, planes, request, screen};
    use super::*;
    use crate::memory::Memory;
    use crate::screen::{Driver, Picture, Screen};
    use std::sync::Arc;

    fn mbochs() -> Mbochs {
        Mbochs::new(Exporter::new(true), 16 << 20, Access::ReadOnly)
    }

    fn query(mbochs: &mut Mbochs, screen: &Screen) -> Result<PlaneInfo, Errno> {
        mbochs.query(&request(PlaneInfo::DMABUF, PlaneInfo::PRIMARY), &planes(screen))
    }

    #[test]
    fn offers_dma_bufs_only() {
        check_probes(&mut mbochs(), PlaneInfo::DMABUF);
    }

    #[test]
    fn the_first_query_of_each_buffer_is_enomem() {
        let (mut mbochs, mut screen) = (mbochs(), screen(640, 480, 2));
        assert_eq!(query(&mut mbochs, &screen), Err(Errno::NOMEM));
        let info = query(&mut mbochs, &screen).unwrap();
        assert_eq!((info.handle, info.size, info.drm_format_mod), (1, 640 * 480 * 4, 0));
        flip(&mut screen, 1);
        assert_eq!(query(&mut mbochs, &screen), Err(Errno::NOMEM));
        assert_eq!(query(&mut mbochs, &screen).unwrap().handle, 2);
        flip(&mut screen, 0);
        assert_eq!(query(&mut mbochs, &screen).unwrap().handle, 1, "a live buffer keeps its id");
    }

    #[test]
    fn ids_live_until_the_device_is_closed_and_are_never_reused() {
        let (mut mbochs, one, two) = (mbochs(), screen(640, 480, 1), screen(640, 480, 1));
        for screen in [&one, &two] {
            query(&mut mbochs, screen).unwrap_err();
        }
        assert!(mbochs.get(1, &planes(&two)).is_ok(), "gone from the screen, but not forgotten");
        mbochs.closed();
        assert_eq!(mbochs.get(1, &planes(&two)).unwrap_err(), Errno::NOENT);
        query(&mut mbochs, &two).unwrap_err();
        assert_eq!(query(&mut mbochs, &two).unwrap().handle, 3);
    }

    #[test]
    fn other_planes_and_a_plane_that_is_off_are_zeros() {
        let (mut mbochs, mut screen) = (mbochs(), screen(640, 480, 1));
        for plane in [0, PlaneInfo::CURSOR, 77] {
            let mut question = request(PlaneInfo::DMABUF, plane);
            (question.width, question.handle, question.x_hot) = (5, 6, 7);
            let expected = request(PlaneInfo::DMABUF, plane);
            assert_eq!(mbochs.query(&question, &planes(&screen)), Ok(expected));
        }
        screen.on = false;
        let answer = query(&mut mbochs, &screen);
        assert_eq!(answer, Ok(request(PlaneInfo::DMABUF, PlaneInfo::PRIMARY)));
    }

    #[test]
    fn an_unaligned_frame_buffer_is_queried_but_not_got() {
        let mut mbochs = mbochs();
        let memory = Arc::new(Memory::new("vram", 4 << 20, true).unwrap());
        let screen = Screen { driver: Driver::Guest, ..Screen::new() };
        let picture = Picture { geometry: geometry(640, 480), memory, offset: 2560 };
        let planes = Planes { primary: Some(picture), reported_width: 640, screen: &screen };
        let question = request(PlaneInfo::DMABUF, PlaneInfo::PRIMARY);
        // The copy that stands in for a dma-buf where there is no /dev/udmabuf has no such limit of
        // its own.
        mbochs.query(&question, &planes).unwrap_err();
        let id = mbochs.query(&question, &planes).unwrap().handle;
        assert_eq!(mbochs.get(id, &planes).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn every_get_of_an_id_is_the_same_buffer() {
        let (mut mbochs, screen) = (mbochs(), screen(640, 480, 1));
        query(&mut mbochs, &screen).unwrap_err();
        assert!(rustix::io::pwrite(mbochs.get(1, &planes(&screen)).unwrap(), b"x", 0).is_err());
        let inode = |fd: OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let one = inode(mbochs.get(1, &planes(&screen)).unwrap());
        assert_eq!(one, inode(mbochs.get(1, &planes(&screen)).unwrap()));
    }
}

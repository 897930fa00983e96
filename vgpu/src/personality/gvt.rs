//! Intel GVT-g (`drivers/gpu/drm/i915/gvt/dmabuf.c` and `fb_decoder.c`).

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{BOCHS, Personality, Traits, Truncation, describe, errno, plane_query};
use crate::export::{Access, Export, Exporter};
use crate::hardware::edid;
use crate::protocol::PlaneInfo;
use crate::screen::{Cursor, Geometry, Picture, Place, Planes};

/// `I915_FORMAT_MOD_X_TILED`; Y and Yf follow.
const X_TILED: u64 = (1 << 56) | 1;
const Y_TILED: u64 = X_TILED + 1;
const YF_TILED: u64 = X_TILED + 2;

/// A hotspot that the guest has not set.
const NO_HOTSPOT: u32 = u32::MAX;

/// Positions are magnitudes of 13 and 12 bits; the sign is lost.
const X_MASK: u32 = 0x1fff;
const Y_MASK: u32 = 0x0fff;

#[derive(Debug)]
struct Buffer {
    id: u32,
    export: Export,
    /// A query found it and no get followed yet: it must not go in between.
    armed: bool,
}

/// The lowest free id from 1 is taken; it is free again when the last reference to the dma-buf is
/// gone.
#[derive(Debug)]
pub struct Gvt {
    exporter: Exporter,
    buffers: Vec<Buffer>,
    access: Access,
}

impl Gvt {
    pub fn new(exporter: Exporter, access: Access) -> Self {
        Self { exporter, buffers: Vec::new(), access }
    }

    /// Releases what nobody refers to. The driver would keep an armed buffer until the device is
    /// closed; here it goes with its mode, since our buffers are memory of their own.
    fn sweep(&mut self, planes: &Planes<'_>) {
        self.buffers.retain(|buffer| {
            buffer.export.held() || (buffer.armed && planes.may_show(&buffer.export.picture))
        });
    }

    /// The id of a picture, a new one if it has none. gvt does not compare strides: a buffer that
    /// differs in nothing else keeps its id.
    fn arm(&mut self, picture: &Picture) -> Result<u32, Errno> {
        let found =
            self.buffers.iter_mut().find(|b| same(b.export.picture.place(), picture.place()));
        if let Some(buffer) = found {
            buffer.armed = true;
            buffer.export.refresh().map_err(|e| errno(&e))?;
            return Ok(buffer.id);
        }
        let id = (1..=u32::MAX)
            .find(|id| self.buffers.iter().all(|b| b.id != *id))
            .ok_or(Errno::NOMEM)?;
        let export = self.exporter.export(picture).map_err(|_| Errno::NOMEM)?;
        export.refresh().map_err(|e| errno(&e))?;
        self.buffers.push(Buffer { id, export, armed: true });
        Ok(id)
    }
}

fn same(one: Place, other: Place) -> bool {
    let geometry = Geometry { stride: other.geometry.stride, ..one.geometry };
    Place { geometry, ..one } == other
}

/// Rows are rounded up to whole tiles.
fn plane_size(geometry: &Geometry) -> u64 {
    let tile_height = match geometry.modifier {
        X_TILED => 8,
        Y_TILED | YF_TILED => 32,
        _ => 1,
    };
    u64::from(geometry.stride) * u64::from(geometry.height.next_multiple_of(tile_height))
}

fn with_position(info: PlaneInfo, cursor: &Cursor) -> PlaneInfo {
    let inside = |(x, y): &(u32, u32)| {
        *x < cursor.picture.geometry.width && *y < cursor.picture.geometry.height
    };
    let (x_hot, y_hot) = cursor.hotspot.filter(inside).unwrap_or((NO_HOTSPOT, NO_HOTSPOT));
    PlaneInfo {
        x_pos: cursor.x.unsigned_abs() & X_MASK,
        y_pos: cursor.y.unsigned_abs() & Y_MASK,
        x_hot,
        y_hot,
        ..info
    }
}

impl Personality for Gvt {
    fn traits(&self) -> Traits {
        Traits {
            identity: BOCHS,
            dispi: true,
            edid: Some(edid::Rules { region_size: 128, max_size: 128, strict: true, preset: true }),
            edid_max: (1920, 1200),
            truncation: Truncation::ZeroesOffset,
            region_info_argsz_max: u32::MAX,
            has_cursor: true,
            pitch_align: 1,
        }
    }

    fn query(&mut self, request: &PlaneInfo, planes: &Planes<'_>) -> Result<PlaneInfo, Errno> {
        let Some(plane) = plane_query(request, PlaneInfo::DMABUF)? else { return Ok(*request) };
        self.sweep(planes);
        let (picture, width, cursor) = match plane {
            PlaneInfo::PRIMARY => match &planes.primary {
                Some(picture) => (picture, planes.reported_width, None),
                // Without a plane the driver leaves the caller's structure alone.
                None => return Ok(*request),
            },
            PlaneInfo::CURSOR => match &planes.screen.cursor {
                Some(cursor) => (&cursor.picture, cursor.picture.geometry.width, Some(cursor)),
                None => return Ok(*request),
            },
            _ => return Err(Errno::INVAL),
        };
        let handle = self.arm(picture)?;
        let info = describe(request, &picture.geometry, width, plane_size(&picture.geometry));
        let info = PlaneInfo { handle, ..info };
        Ok(cursor.map_or(info, |cursor| with_position(info, cursor)))
    }

    fn get(&mut self, id: u32, planes: &Planes<'_>) -> Result<OwnedFd, Errno> {
        self.sweep(planes);
        let buffer = self.buffers.iter_mut().find(|b| b.id == id).ok_or(Errno::INVAL)?;
        let fd = buffer.export.descriptor(self.access, true).map_err(|e| errno(&e))?;
        buffer.armed = false;
        Ok(fd)
    }

    fn closed(&mut self) {
        self.buffers.clear();
    }

    fn ids(&self) -> Vec<(u32, bool)> {
        self.buffers.iter().map(|b| (b.id, b.export.held())).collect()
    }

    fn id_of(&self, picture: &Place) -> Option<u32> {
        self.buffers.iter().find(|b| same(b.export.picture.place(), *picture)).map(|b| b.id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_probes, cursor, flip, geometry, planes, request, screen};
    use super::*;
    use crate::screen::Screen;

    fn gvt() -> Gvt {
        Gvt::new(Exporter::new(true), Access::ReadWrite)
    }

    fn query(gvt: &mut Gvt, screen: &Screen, plane: u32) -> Result<PlaneInfo, Errno> {
        gvt.query(&request(PlaneInfo::DMABUF, plane), &planes(screen))
    }

    #[test]
    fn offers_dma_bufs_only() {
        check_probes(&mut gvt(), PlaneInfo::DMABUF);
    }

    #[test]
    fn an_id_is_reused_after_the_last_reference_is_gone() {
        let (mut gvt, mut one) = (gvt(), screen(640, 480, 2));
        let id = |gvt: &mut Gvt, screen: &Screen| query(gvt, screen, 1).unwrap().handle;
        assert_eq!(id(&mut gvt, &one), 1);
        let first = gvt.get(1, &planes(&one)).unwrap();
        flip(&mut one, 1);
        assert_eq!(id(&mut gvt, &one), 2);
        let second = gvt.get(2, &planes(&one)).unwrap();
        let two = screen(640, 480, 1);
        assert_eq!(id(&mut gvt, &two), 3, "both are held");
        drop(first);
        let two = screen(640, 480, 1);
        assert_eq!(id(&mut gvt, &two), 1, "other contents, old id");
        drop(second);
    }

    #[test]
    fn a_buffer_stays_between_query_and_get_but_not_beyond_its_mode() {
        let (mut gvt, mut one) = (gvt(), screen(640, 480, 2));
        query(&mut gvt, &one, 1).unwrap();
        flip(&mut one, 1);
        query(&mut gvt, &one, 1).unwrap();
        assert!(gvt.get(1, &planes(&one)).is_ok());
        let two = screen(800, 600, 1);
        assert_eq!(gvt.get(2, &planes(&two)).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn a_held_buffer_outlives_its_mode() {
        let (mut gvt, one) = (gvt(), screen(640, 480, 1));
        query(&mut gvt, &one, 1).unwrap();
        let held = gvt.get(1, &planes(&one)).unwrap();
        let two = screen(640, 480, 1);
        assert!(gvt.get(1, &planes(&two)).is_ok());
        drop(held);
        assert_eq!(gvt.get(1, &planes(&two)).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn planes_other_than_primary_and_cursor_are_einval() {
        let (mut gvt, screen) = (gvt(), screen(640, 480, 1));
        for plane in [0, 3] {
            assert_eq!(query(&mut gvt, &screen, plane), Err(Errno::INVAL));
        }
    }

    #[test]
    fn without_a_plane_the_request_comes_back_untouched() {
        let (mut gvt, mut screen) = (gvt(), screen(640, 480, 1));
        screen.on = false;
        for plane in [PlaneInfo::PRIMARY, PlaneInfo::CURSOR] {
            let mut question = request(PlaneInfo::DMABUF, plane);
            (question.width, question.size, question.handle) = (5, 6, 7);
            assert_eq!(gvt.query(&question, &planes(&screen)), Ok(question));
        }
    }

    #[test]
    fn cursor_positions_are_magnitudes() {
        let (mut gvt, mut screen) = (gvt(), screen(640, 480, 1));
        screen.cursor = Some(cursor(-5, -4098, Some((3, 4))));
        let info = query(&mut gvt, &screen, PlaneInfo::CURSOR).unwrap();
        assert_eq!((info.x_pos, info.y_pos), (5, 2));
        assert_eq!((info.x_hot, info.y_hot), (3, 4));
        assert_eq!((info.width, info.height, info.stride, info.size), (64, 64, 256, 16384));
        assert_eq!(info.drm_format, u32::from_le_bytes(*b"AR24"));
    }

    #[test]
    fn a_hotspot_that_is_unset_or_outside_is_all_ones() {
        let (mut gvt, mut screen) = (gvt(), screen(640, 480, 1));
        for hotspot in [None, Some((64, 0)), Some((0, 200))] {
            screen.cursor = Some(cursor(0, 0, hotspot));
            let info = query(&mut gvt, &screen, PlaneInfo::CURSOR).unwrap();
            assert_eq!((info.x_hot, info.y_hot), (u32::MAX, u32::MAX));
        }
    }

    #[test]
    fn sizes_are_whole_tiles() {
        let of = |modifier| plane_size(&Geometry { modifier, ..geometry(100, 30) });
        assert_eq!(of(0), 400 * 30);
        assert_eq!(of(X_TILED), 400 * 32);
        assert_eq!(of(Y_TILED), 400 * 32);
        let tall = Geometry { modifier: YF_TILED, ..geometry(100, 33) };
        assert_eq!(plane_size(&tall), 400 * 64);
    }
}

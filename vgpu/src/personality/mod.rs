//! Personalities: how different vGPU drivers tell the host about the same hardware.

mod gvt;
mod mbochs;
mod mdpy;
mod nvidia;

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::export::{Access, Exporter};
use crate::hardware::edid;
use crate::hardware::pci::Identity;
use crate::memory::Memory;
use crate::protocol::PlaneInfo;
use crate::screen::{Geometry, Place, Planes};

/// How a driver answers GET_REGION_INFO when the caller's buffer has no room for the capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// The capability's offset is reported although it was cut off.
    KeepsOffset,
    /// The offset is zero.
    ZeroesOffset,
}

/// What does not change while the device lives.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    pub identity: Identity,
    /// Whether the guest finds the bochs registers behind BAR 2.
    pub dispi: bool,
    pub edid: Option<edid::Rules>,
    /// The largest mode in the EDID region unless the command line says otherwise.
    pub edid_max: (u32, u32),
    pub truncation: Truncation,
    /// The largest argsz that GET_REGION_INFO takes.
    pub region_info_argsz_max: u32,
    pub has_cursor: bool,
    /// What a pitch is a multiple of, in bytes.
    pub pitch_align: u32,
}

/// A vGPU driver's side of the two graphics calls.
pub trait Personality: Debug + Send {
    fn traits(&self) -> Traits;

    /// Answers a query, probes included. `argsz` has been checked.
    fn query(&mut self, request: &PlaneInfo, planes: &Planes<'_>) -> Result<PlaneInfo, Errno>;

    /// Hands out a dma-buf. `planes` says what is on screen now, which may be another thing than at
    /// the query.
    fn get(&mut self, id: u32, planes: &Planes<'_>) -> Result<OwnedFd, Errno>;

    /// What a get with an unknown id fails with.
    fn unknown_id(&self) -> Errno {
        Errno::INVAL
    }

    /// The display region and its memory, for drivers that have one.
    fn region(&self) -> Option<(u32, Arc<Memory>)> {
        None
    }

    /// The client has closed the device.
    fn closed(&mut self) {}

    /// The ids that stand for something, and whether the client holds a dma-buf of them.
    fn ids(&self) -> Vec<(u32, bool)> {
        Vec::new()
    }

    /// The id under which a picture is known.
    fn id_of(&self, _picture: &Place) -> Option<u32> {
        None
    }
}

/// Which driver to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The kernel's sample driver with dma-bufs: no cursor, ids are never reused.
    Mbochs,
    /// Intel GVT-g: dma-bufs whose ids are reused, a cursor plane.
    Gvt,
    /// NVIDIA vGPU: a display region only, pitch aligned to 128 bytes.
    Nvidia,
    /// The kernel's sample driver with a display region and one fixed mode.
    Mdpy,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mbochs => "mbochs",
            Self::Gvt => "gvt",
            Self::Nvidia => "nvidia",
            Self::Mdpy => "mdpy",
        }
    }

    /// The driver's side, for a device with this VRAM. `access`: what its dma-bufs are opened for.
    pub fn build(
        self,
        vram: &Arc<Memory>,
        sealed: bool,
        exporter: Exporter,
        access: Access,
    ) -> std::io::Result<Box<dyn Personality>> {
        Ok(match self {
            Self::Mbochs => Box::new(mbochs::Mbochs::new(exporter, vram.capacity(), access)),
            Self::Gvt => Box::new(gvt::Gvt::new(exporter, access)),
            Self::Nvidia => Box::new(nvidia::Nvidia::new(vram, sealed)?),
            Self::Mdpy => Box::new(mdpy::Mdpy::new(vram.clone())),
        })
    }
}

/// bochs' display device.
const BOCHS: Identity =
    Identity { vendor: 0x1234, device: 0x1111, revision: 1, mode_capability: false };

/// What a query asks for, when the driver offers `offered` (dma-buf or region). `None`: it was a
/// probe, and is answered.
fn plane_query(request: &PlaneInfo, offered: u32) -> Result<Option<u32>, Errno> {
    if request.flags & PlaneInfo::PROBE != 0 {
        return if request.flags == PlaneInfo::PROBE | offered {
            Ok(None)
        } else {
            Err(Errno::INVAL)
        };
    }
    if request.flags != offered {
        return Err(Errno::INVAL);
    }
    Ok(Some(request.drm_plane_type))
}

/// A request with the picture filled in. Positions and hotspot are zero.
fn describe(request: &PlaneInfo, geometry: &Geometry, width: u32, size: u64) -> PlaneInfo {
    PlaneInfo {
        drm_format: geometry.format.fourcc(),
        drm_format_mod: geometry.modifier,
        width,
        height: geometry.height,
        stride: geometry.stride,
        size: u32::try_from(size).unwrap_or(u32::MAX),
        ..request.without_plane()
    }
}

/// An I/O error as the errno that a driver would return.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
pub mod testing {
    //! What the personalities' tests share.

    use super::*;
    use crate::format::Format;
    use crate::screen::{Cursor, Driver, HostMode, Picture, Screen};

    pub fn geometry(width: u32, height: u32) -> Geometry {
        Geometry { format: Format::XRGB8888, modifier: 0, width, height, stride: width * 4 }
    }

    /// A screen with a host-driven mode of this many buffers.
    pub fn screen(width: u32, height: u32, buffers: usize) -> Screen {
        let mode = HostMode::new(geometry(width, height), buffers, true).unwrap();
        Screen { driver: Driver::Host, mode: Some(mode), ..Screen::new() }
    }

    pub fn planes(screen: &Screen) -> Planes<'_> {
        let mode = screen.mode.as_ref();
        let primary = if screen.on { mode.and_then(|mode| mode.picture(mode.shown)) } else { None };
        Planes { primary, reported_width: mode.map_or(0, |m| m.reported_width), screen }
    }

    pub fn flip(screen: &mut Screen, to: usize) {
        screen.mode.as_mut().unwrap().shown = to;
    }

    pub fn cursor(x: i32, y: i32, hotspot: Option<(u32, u32)>) -> Cursor {
        let geometry = Geometry { format: Format::ARGB8888, ..geometry(64, 64) };
        let memory = Arc::new(Memory::new("test", geometry.bytes(), true).unwrap());
        Cursor { picture: Picture { geometry, memory, offset: 0 }, x, y, hotspot }
    }

    pub fn request(flags: u32, plane: u32) -> PlaneInfo {
        PlaneInfo { argsz: 64, flags, drm_plane_type: plane, ..PlaneInfo::default() }
    }

    /// Only the offered probe succeeds.
    pub fn check_probes(personality: &mut dyn Personality, offered: u32) {
        let screen = screen(640, 480, 1);
        for kind in [PlaneInfo::DMABUF, PlaneInfo::REGION] {
            let answer = personality.query(&request(PlaneInfo::PROBE | kind, 0), &planes(&screen));
            assert_eq!(answer.is_ok(), kind == offered, "probe {kind}");
        }
        for flags in [0, PlaneInfo::PROBE, 7, 6, 8, PlaneInfo::DMABUF ^ PlaneInfo::REGION ^ offered]
        {
            let answer = personality.query(&request(flags, 1), &planes(&screen));
            assert_eq!(answer, Err(Errno::INVAL), "flags {flags}");
        }
    }
}

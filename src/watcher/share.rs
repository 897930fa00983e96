//! Shares the primary plane with other devices of the VM: its dma-buf gets a UUID, by which virtio
//! and vhost-user devices find it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use uuid::Uuid;

use crate::clock::Clock;
use crate::device::Device;
use crate::plane::PlaneKind;
use crate::pool::Key;
use crate::problem::Problem;
use crate::shared_objects::{AddError, DmaBuf, Object};

use super::budget::Budget;
use super::{Planes, Watcher};

/// Why there is no UUID.
#[derive(Debug)]
pub enum ShareError {
    /// Sharing is not enabled.
    Off,
    /// A region is no dma-buf.
    Region,
    /// The plane is off.
    NoPlane,
    /// The plane cannot be had.
    Plane(Problem),
    /// The descriptor could not be duplicated.
    Duplicate(io::Error),
    /// The table refused.
    Table(AddError),
}

impl<D: Device, T: Clock> Watcher<D, T> {
    /// Returns the UUID of the dma-buf that the device shows now.
    ///
    /// It stays the same as long as we hold the buffer, whatever is shown in between. When the
    /// buffer goes (the pool is full, the device is reset, the display closes), it is found no
    /// longer; those who found it have a descriptor of their own.
    pub fn share_scanout(&mut self) -> Result<Uuid, ShareError> {
        let shared = self.share_shown();
        self.retire();
        shared
    }

    fn share_shown(&mut self) -> Result<Uuid, ShareError> {
        if self.sharing.is_none() {
            return Err(ShareError::Off);
        }
        let Planes::DmaBuf(planes) = &mut self.planes else { return Err(ShareError::Region) };
        // If nobody watches the console, what is known may be old.
        let time = (Budget::new(self.clock.now()), &self.clock);
        let (key, plane) = planes
            .poll(&self.device, time, PlaneKind::Primary, None, &mut self.counters)
            .map_err(ShareError::Plane)?
            .ok_or(ShareError::NoPlane)?;
        planes.check_passing_on(key, plane.handle).map_err(ShareError::Plane)?;
        self.share_buffer(key)
    }

    /// Shares what the device showed at the last poll, if possible.
    pub(super) fn share_known(&mut self) {
        let Planes::DmaBuf(planes) = &self.planes else { return };
        let Some((key, id)) = planes.known_primary() else { return };
        self.shared = match planes.check_passing_on(key, id) {
            Ok(()) => self.share_buffer(key).ok(),
            Err(_) => None,
        };
    }

    fn share_buffer(&mut self, key: Key) -> Result<Uuid, ShareError> {
        let owner = self.sharing.as_ref().ok_or(ShareError::Off)?;
        let Planes::DmaBuf(planes) = &mut self.planes else { return Err(ShareError::Region) };
        let buffer = planes.pool.get_mut(key).ok_or(ShareError::NoPlane)?;
        if let Some(claim) = &buffer.claim {
            return Ok(claim.uuid());
        }
        let fd = buffer.dma_buf.as_fd().try_clone_to_owned().map_err(ShareError::Duplicate)?;
        let claim = owner.share(Object::DmaBuf(DmaBuf::Owned(fd))).map_err(ShareError::Table)?;
        Ok(buffer.claim.insert(claim).uuid())
    }
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("sharing of planes is not switched on"),
            Self::Region => f.write_str("the device shows a region, which is no dma-buf"),
            Self::NoPlane => f.write_str("the display is off"),
            Self::Plane(problem) => problem.fmt(f),
            Self::Duplicate(error) => write!(f, "duplicating the dma-buf's descriptor: {error}"),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ShareError {}

//! A device that announces its calls.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use crate::clock::Clock;
use crate::console::Monitor;
use crate::device::{Device, NotAsked, RegionInfo};
use crate::exchange::{Call, Exchange};
use crate::plane::PlaneInfo;

/// A device whose calls are announced to the exchange, so that the presenter sees which one does
/// not return, and none is made during a reset.
pub struct Announced<D, T> {
    device: D,
    clock: T,
    to: OnceLock<Arc<Exchange>>,
}

impl<D: Device, T: Clock> Announced<D, T> {
    /// Wraps a device; announces nothing yet.
    pub fn new(device: D, clock: T) -> Self {
        Self { device, clock, to: OnceLock::new() }
    }

    /// Announces calls there from now on.
    pub fn announce_to(&self, exchange: Arc<Exchange>) {
        // A watcher has one exchange for its life.
        let _ = self.to.set(exchange);
    }

    fn call<R>(&self, name: &'static str, act: impl FnOnce(&D) -> io::Result<R>) -> io::Result<R> {
        let Some(exchange) = self.to.get() else { return act(&self.device) };
        if !exchange.calls(Call { name, since: self.clock.now() }) {
            return Err(NotAsked.into());
        }
        let result = act(&self.device);
        exchange.answered();
        result
    }
}

impl<D: Device, T: Clock> Device for Announced<D, T> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn query_plane(&self, info: &mut PlaneInfo) -> io::Result<()> {
        self.call("QUERY_GFX_PLANE", |device| device.query_plane(info))
    }

    fn get_dmabuf(&self, id: u32) -> io::Result<OwnedFd> {
        self.call("GET_GFX_DMABUF", |device| device.get_dmabuf(id))
    }

    fn region(&self, index: u32) -> io::Result<RegionInfo> {
        self.call("GET_REGION_INFO", |device| device.region(index))
    }

    fn read_region(&self, index: u32, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.call("reading a region", |device| device.read_region(index, offset, buf))
    }

    fn write_region(&self, index: u32, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.call("writing to a region", |device| device.write_region(index, offset, buf))
    }

    fn keeps_ids(&self) -> bool {
        self.device.keeps_ids()
    }

    fn exports_once(&self) -> bool {
        self.device.exports_once()
    }

    fn signal_changes(&self, event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.call("SET_IRQS", |device| device.signal_changes(event))
    }

    fn edid_region(&self) -> Option<u32> {
        self.device.edid_region()
    }

    fn generate_edid(&self, monitor: &Monitor, blob: &mut [u8]) -> usize {
        self.device.generate_edid(monitor, blob)
    }
}

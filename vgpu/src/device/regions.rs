//! The PCI side: regions, what they are read and written like, and interrupts.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::hardware::{dispi, pci};
use crate::memory::Memory;
use crate::protocol::{Change, IRQ_COUNT, edid_type_capability, region, region_flag};
use crate::screen::Driver;

use super::Device;

/// Size of BAR 2.
const MMIO_SIZE: u64 = 4096;
const MMIO_EDID_END: usize = 0x400;
const MMIO_DISPI: usize = 0x500;

/// What GET_REGION_INFO tells about a region.
#[derive(Debug)]
pub struct RegionInfo {
    pub flags: u32,
    pub size: u64,
    pub capability: Option<[u8; 16]>,
    pub fd: Option<OwnedFd>,
}

impl Device {
    /// Index of the EDID region: the first beyond PCI's that the display region does not have.
    pub fn edid_index(&self) -> Option<u32> {
        let taken = matches!(self.personality.region(), Some((region::COUNT, _)));
        self.edid.is_some().then_some(region::COUNT + u32::from(taken))
    }

    /// Regions that the device says it has.
    pub fn region_count(&self) -> u32 {
        self.edid_index().map_or(region::COUNT, |index| index + 1)
    }

    /// Index of the display interrupt.
    pub fn display_irq(&self) -> Option<u32> {
        self.config.display_events.then_some(IRQ_COUNT)
    }

    /// Interrupts that the device says it has.
    pub fn irq_count(&self) -> u32 {
        IRQ_COUNT + u32::from(self.config.display_events)
    }

    pub fn region_info(&mut self, index: u32) -> Result<RegionInfo, Errno> {
        self.stats.region_infos += 1;
        let plain = |flags, size| RegionInfo { flags, size, capability: None, fd: None };
        let rw = region_flag::READ | region_flag::WRITE;
        if let Some(memory) = self.region_memory(index) {
            let fd = memory.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            let size = memory.capacity();
            if index != region::BAR0 && !self.config.region_mmap {
                return Ok(plain(rw, size));
            }
            return Ok(RegionInfo { fd: Some(fd), ..plain(rw | region_flag::MMAP, size) });
        }
        if let (Some(edid), true) = (&self.edid, self.edid_index() == Some(index)) {
            let capability = Some(edid_type_capability());
            let info = plain(rw | region_flag::CAPS, edid.rules().region_size);
            return Ok(RegionInfo { capability, ..info });
        }
        match index {
            region::CONFIG => Ok(plain(rw, pci::SIZE as u64)),
            region::BAR2 if self.traits.dispi => Ok(plain(rw, MMIO_SIZE)),
            0..region::COUNT => Ok(plain(0, 0)),
            _ => Err(Errno::INVAL),
        }
    }

    /// The memory of the regions that are memory.
    fn region_memory(&self, index: u32) -> Option<Arc<Memory>> {
        if index == region::BAR0 {
            return Some(self.vram.clone());
        }
        self.personality.region().filter(|(i, _)| *i == index).map(|(_, memory)| memory)
    }

    /// REGION_READ.
    pub fn region_read(&mut self, index: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        if let (Some(edid), true) = (&self.edid, self.edid_index() == Some(index)) {
            self.stats.edid_reads += 1;
            return edid.read(offset, data);
        }
        self.stats.region_reads += 1;
        if let Some(memory) = self.region_memory(index) {
            return memory.read(offset, data).map_err(|_| Errno::INVAL);
        }
        match index {
            region::CONFIG => self.pci.read(range(offset, data.len(), pci::SIZE)?, data),
            region::BAR2 if self.traits.dispi => {
                let offset = range(offset, data.len(), 4096)?;
                match offset {
                    0..MMIO_EDID_END => match &self.edid {
                        Some(edid) => edid.guest_read(offset, data),
                        None => data.fill(0),
                    },
                    _ => match (dispi_index(offset), data.len()) {
                        (Some(index), 2) => {
                            data.copy_from_slice(&self.dispi.read(index).to_le_bytes());
                        }
                        _ => data.fill(0),
                    },
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// REGION_WRITE.
    pub fn region_write(&mut self, index: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if let (true, Some(edid)) = (self.edid_index() == Some(index), &mut self.edid) {
            self.stats.edid_writes += 1;
            let links = edid.links();
            let answer = edid.write(offset, data);
            self.stats.edid_blobs += edid.links() - links;
            return answer;
        }
        self.stats.region_writes += 1;
        if let Some(memory) = self.region_memory(index) {
            memory.write(offset, data).map_err(|_| Errno::INVAL)?;
            if self.screen.driver == Driver::Guest {
                self.changed(Change::Primary);
            }
            return Ok(());
        }
        match index {
            region::CONFIG => self.pci.write(range(offset, data.len(), pci::SIZE)?, data),
            region::BAR2 if self.traits.dispi => {
                let offset = range(offset, data.len(), 4096)?;
                if let (Some(index), Ok(value)) = (dispi_index(offset), data.try_into()) {
                    let before = self.dispi.frame_buffer();
                    self.dispi.write(index, u16::from_le_bytes(value));
                    if self.screen.driver == Driver::Guest && self.dispi.frame_buffer() != before {
                        self.changed(Change::Primary);
                    }
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }
}

/// The offset, if the access stays within `size` bytes.
fn range(offset: u64, bytes: usize, size: usize) -> Result<usize, Errno> {
    let start = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
    match start.checked_add(bytes) {
        Some(end) if end <= size => Ok(start),
        _ => Err(Errno::INVAL),
    }
}

fn dispi_index(offset: usize) -> Option<usize> {
    let index = offset.checked_sub(MMIO_DISPI)? / 2;
    (offset % 2 == 0 && index < dispi::COUNT).then_some(index)
}

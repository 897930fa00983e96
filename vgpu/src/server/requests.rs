//! The requests of a client that concern the device: what each wants, and what it gets.
//!
//! Each function is given the payload of its message, and fails with the errno that the client
//! gets.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::device::Device;
use crate::personality::Truncation;
use crate::protocol::{
    DEVICE_FLAGS, IRQ_COUNT, IRQ_ERR, MAX_TRANSFER, PlaneInfo, display_irq_info, irq_set,
    region_flag, u32_at, u64_at,
};

/// A successful answer.
#[derive(Debug, Default)]
pub struct Reply {
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// Whether closing what it brings may take long.
    pub is_odd: bool,
}

impl Reply {
    pub fn of(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }
}

pub fn dma_map(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    u64_at(payload, 24)?;
    device.stats.dma_maps += 1;
    Ok(Reply::default())
}

pub fn dma_unmap(payload: &[u8]) -> Result<Reply, Errno> {
    u64_at(payload, 16)?;
    Ok(Reply::of(&payload[..24]))
}

pub fn info(device: &Device, payload: &[u8]) -> Result<Reply, Errno> {
    if u32_at(payload, 0)? < 16 {
        return Err(Errno::INVAL);
    }
    Ok(Reply::of(words(&[16, DEVICE_FLAGS, device.region_count(), device.irq_count()])))
}

pub fn region_info(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    const BASE: u32 = 32;

    let (argsz, index) = (u32_at(payload, 0)?, u32_at(payload, 8)?);
    u64_at(payload, 24)?;
    if argsz < BASE || argsz > device.traits.region_info_argsz_max {
        return Err(Errno::INVAL);
    }
    let info = device.region_info(index)?;
    let capability: &[u8] = info.capability.as_ref().map_or(&[], |c| c.as_slice());
    let needed = BASE + u32::try_from(capability.len()).unwrap_or(0);
    let fits = argsz >= needed;
    let offset_told = fits || device.traits.truncation == Truncation::KeepsOffset;
    let cap_offset = if info.flags & region_flag::CAPS != 0 && offset_told { BASE } else { 0 };
    let mut reply = words(&[needed, info.flags, index, cap_offset]);
    reply.extend(info.size.to_le_bytes());
    // All regions with a descriptor start at its first byte.
    reply.extend(0_u64.to_le_bytes());
    if fits {
        reply.extend(capability);
    }
    Ok(Reply { payload: reply, fds: info.fd.into_iter().collect(), is_odd: false })
}

pub fn irq_info(device: &Device, payload: &[u8]) -> Result<Reply, Errno> {
    let (argsz, index) = (u32_at(payload, 0)?, u32_at(payload, 8)?);
    if argsz >= 16 && device.display_irq() == Some(index) {
        return Ok(Reply::of(display_irq_info(index, argsz)));
    }
    // Errors are reported on PCI Express only.
    if argsz < 16 || index >= IRQ_COUNT || index == IRQ_ERR {
        return Err(Errno::INVAL);
    }
    Ok(Reply::of(words(&[16, 0, index, 0])))
}

pub fn set_irqs(
    device: &mut Device,
    payload: &[u8],
    mut fds: Vec<OwnedFd>,
) -> Result<Reply, Errno> {
    const UNSET: u32 = irq_set::DATA_NONE | irq_set::ACTION_TRIGGER;
    const SET: u32 = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;

    let (flags, index) = (u32_at(payload, 4)?, u32_at(payload, 8)?);
    let (start, count) = (u32_at(payload, 12)?, u32_at(payload, 16)?);
    if device.display_irq() != Some(index) {
        // No other interrupt exists, so nothing can be set, but all can be disabled.
        return if count == 0 { Ok(Reply::default()) } else { Err(Errno::INVAL) };
    }
    match (flags, start, count, fds.len()) {
        (UNSET, _, 0, 0) | (SET, 0, 1, 0) => device.events.unset(),
        (SET, 0, 1, 1) => device.events.set(fds.remove(0))?,
        _ => return Err(Errno::INVAL),
    }
    Ok(Reply::default())
}

pub fn region_read(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    let (offset, region, count) = access(payload)?;
    let mut reply = payload[..16].to_vec();
    reply.resize(16 + count, 0);
    device.region_read(region, offset, &mut reply[16..])?;
    Ok(Reply::of(reply))
}

pub fn region_write(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    let (offset, region, count) = access(payload)?;
    let data = payload.get(16..16 + count).ok_or(Errno::INVAL)?;
    device.region_write(region, offset, data)?;
    Ok(Reply::of(&payload[..16]))
}

pub fn region_write_multi(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    const ENTRY: usize = 24;

    let count = usize::try_from(u64_at(payload, 0)?).map_err(|_| Errno::INVAL)?;
    let writes = payload[8..].chunks_exact(ENTRY);
    if count > writes.len() {
        return Err(Errno::INVAL);
    }
    for write in writes.take(count) {
        let (offset, region, bytes) = access(write)?;
        let data = write[16..].get(..bytes).ok_or(Errno::INVAL)?;
        device.region_write(region, offset, data)?;
    }
    Ok(Reply::of((count as u64).to_le_bytes()))
}

pub fn query_plane(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    let request = PlaneInfo::parse(payload)?;
    Ok(Reply::of(device.query(&request)?.bytes()))
}

pub fn get_dmabuf(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    if payload.len() != 16 || u32_at(payload, 0)? < 16 || u32_at(payload, 4)? != 0 {
        return Err(Errno::INVAL);
    }
    let id = u32_at(payload, 8)?;
    let fds = vec![device.get(id)?];
    Ok(Reply { payload: words(&[16, 0, id, 0]), fds, is_odd: false })
}

/// Offset, region and byte count of a region access.
fn access(payload: &[u8]) -> Result<(u64, u32, usize), Errno> {
    let (offset, region, count) = (u64_at(payload, 0)?, u32_at(payload, 8)?, u32_at(payload, 12)?);
    match usize::try_from(count) {
        Ok(count) if count <= MAX_TRANSFER => Ok((offset, region, count)),
        _ => Err(Errno::INVAL),
    }
}

/// Words as a payload has them.
pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

//! The EDID region: registers through which the host tells the guest about the monitor.

use rustix::io::Errno;
use serde_json::{Value, json};

/// Offset of the blob in the region, with every driver.
pub const BLOB_OFFSET: u64 = 2048;

const REGISTERS: u64 = 24;
const EDID_SIZE: u64 = 8;
const LINK_STATE: u64 = 20;

const LINK_UP: u32 = 1;
const LINK_DOWN: u32 = 2;

/// How a driver handles the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Bytes that the region's information claims.
    pub region_size: u64,
    pub max_size: u32,
    /// Whether a bad access is EFAULT and a bad blob keeps the link down (gvt), or both are ignored
    /// (mbochs).
    pub strict: bool,
    /// Whether the device has an EDID before anyone wrote one.
    pub preset: bool,
}

/// Those of mbochs: nothing is checked.
pub const PLAIN: Rules = Rules { region_size: 4096, max_size: 1024, strict: false, preset: false };

/// The region's state.
#[derive(Debug)]
pub struct EdidRegion {
    rules: Rules,
    /// Zero stands for no limit.
    max: (u32, u32),
    size: u32,
    link_state: u32,
    blob: Vec<u8>,
    /// How often the link came up.
    links: u64,
}

impl EdidRegion {
    /// `max`: the largest mode that the device accepts, 0 for no limit.
    pub fn new(rules: Rules, max: (u32, u32)) -> Self {
        let mut blob = vec![0; rules.max_size as usize];
        let mut size = 0;
        if rules.preset {
            let preset = minimal(max);
            blob[..preset.len()].copy_from_slice(&preset);
            size = 128;
        }
        Self { rules, max, size, link_state: 0, blob, links: 0 }
    }

    pub fn rules(&self) -> Rules {
        self.rules
    }

    pub fn links(&self) -> u64 {
        self.links
    }

    pub fn link_state(&self) -> u32 {
        self.link_state
    }

    /// What was written last, as far as its size says.
    pub fn blob(&self) -> &[u8] {
        &self.blob[..self.size as usize]
    }

    /// The host reads.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        data.fill(0);
        if offset < BLOB_OFFSET {
            if data.len() != 4 || offset % 4 != 0 || offset >= REGISTERS {
                return self.refuse();
            }
            let value = match offset {
                // The constant is as small as it looks.
                #[expect(clippy::cast_possible_truncation)]
                0 => BLOB_OFFSET as u32,
                4 => self.rules.max_size,
                EDID_SIZE => self.size,
                12 => self.max.0,
                16 => self.max.1,
                _ => self.link_state,
            };
            data.copy_from_slice(&value.to_le_bytes());
            return Ok(());
        }
        match self.blob_range(offset, data.len()) {
            Some(range) => data.copy_from_slice(&self.blob[range]),
            None => self.refuse()?,
        }
        Ok(())
    }

    /// The host writes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if offset >= BLOB_OFFSET {
            return match self.blob_range(offset, data.len()) {
                Some(range) => {
                    self.blob[range].copy_from_slice(data);
                    Ok(())
                }
                None => self.refuse(),
            };
        }
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else { return self.refuse() };
        match offset {
            EDID_SIZE if value <= self.rules.max_size => self.size = value,
            LINK_STATE if value == LINK_UP => {
                if self.rules.strict && !self.is_valid() {
                    return self.refuse();
                }
                self.link_state = value;
                self.links += 1;
            }
            LINK_STATE if value == LINK_DOWN => self.link_state = value,
            _ => return self.refuse(),
        }
        Ok(())
    }

    /// What the guest sees in its window: nothing while the link is down.
    pub fn guest_read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        if self.link_state == LINK_UP {
            for (to, from) in data.iter_mut().zip(self.blob().iter().skip(offset)) {
                *to = *from;
            }
        }
    }

    /// The state for the control socket.
    pub fn describe(&self) -> Value {
        json!({
            "size": self.size,
            "link_state": link_name(self.link_state),
            "hex": hex(self.blob()),
            "preferred": preferred(self.blob()),
            "max_xres": self.max.0,
            "max_yres": self.max.1,
        })
    }

    /// gvt insists that the size is written before the blob; mbochs accepts what fits.
    fn blob_range(&self, offset: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(offset - BLOB_OFFSET).ok()?;
        let end = start.checked_add(bytes)?;
        let limit = if self.rules.strict { self.size } else { self.rules.max_size };
        (end <= limit as usize).then_some(start..end)
    }

    fn is_valid(&self) -> bool {
        let blob = self.blob();
        blob.len() >= 128
            && blob[..8] == [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]
            && blob[..128].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
            && blob[126] == 0
    }

    fn refuse(&self) -> Result<(), Errno> {
        if self.rules.strict { Err(Errno::FAULT) } else { Ok(()) }
    }
}

/// The register's value in words.
pub fn link_name(link_state: u32) -> &'static str {
    match link_state {
        LINK_UP => "up",
        LINK_DOWN => "down",
        _ => "unset",
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The first detailed timing: the mode that the monitor prefers.
pub fn preferred(edid: &[u8]) -> Value {
    let Some(t) = edid.get(54..72) else { return Value::Null };
    let clock = u32::from(u16::from_le_bytes([t[0], t[1]])) * 10_000;
    if clock == 0 {
        return Value::Null;
    }
    let wide =
        |low: u8, high: u8, shift: u32| u32::from(low) | (((u32::from(high) >> shift) & 0xf) << 8);
    let (width, hblank) = (wide(t[2], t[4], 4), wide(t[3], t[4], 0));
    let (height, vblank) = (wide(t[5], t[7], 4), wide(t[6], t[7], 0));
    let total = (width + hblank) * (height + vblank);
    let millihertz = u64::from(clock) * 1000 / u64::from(total.max(1));
    json!({
        "width": width,
        "height": height,
        "refresh_millihertz": millihertz,
        "width_mm": wide(t[12], t[14], 4),
        "height_mm": wide(t[13], t[14], 0),
    })
}

/// A valid EDID with nothing in it but one mode: the largest, at 60 Hz.
fn minimal(max: (u32, u32)) -> [u8; 128] {
    let width = if max.0 == 0 { 1024 } else { max.0.min(4000) };
    let height = if max.1 == 0 { 768 } else { max.1.min(4000) };
    let (hblank, vblank) = (160, 45);
    let clock = (width + hblank) * (height + vblank) * 60 / 10_000;
    let clock = u16::try_from(clock).unwrap_or(u16::MAX);
    let mut edid = [0; 128];
    edid[1..7].fill(0xff);
    // Manufacturer VGP, EDID 1.4, digital.
    edid[8..10].copy_from_slice(&[0x58, 0xf0]);
    edid[18..21].copy_from_slice(&[1, 4, 0xa5]);
    edid[24] = 0x06;
    edid[38..54].fill(1);
    let low = |value: u32| (value & 0xff) as u8;
    let high = |active: u32, blank: u32| low((active >> 8 << 4) | (blank >> 8));
    edid[54..56].copy_from_slice(&clock.to_le_bytes());
    edid[56..59].copy_from_slice(&[low(width), low(hblank), high(width, hblank)]);
    edid[59..62].copy_from_slice(&[low(height), low(vblank), high(height, vblank)]);
    edid[62..65].copy_from_slice(&[48, 32, 0x35]);
    edid[71] = 0x1e;
    edid[127] = edid.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    edid
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBOCHS: Rules = Rules { region_size: 4096, max_size: 1024, strict: false, preset: false };
    const GVT: Rules = Rules { region_size: 128, max_size: 128, strict: true, preset: true };

    fn register(region: &EdidRegion, offset: u64) -> u32 {
        let mut data = [0; 4];
        region.read(offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    fn write(region: &mut EdidRegion, offset: u64, value: u32) -> Result<(), Errno> {
        region.write(offset, &value.to_le_bytes())
    }

    #[test]
    fn registers_say_what_the_drivers_say() {
        let region = EdidRegion::new(MBOCHS, (1920, 1440));
        let values: Vec<u32> = (0..6).map(|i| register(&region, i * 4)).collect();
        assert_eq!(values, [2048, 1024, 0, 1920, 1440, 0]);
        let region = EdidRegion::new(GVT, (1920, 1200));
        let values: Vec<u32> = (0..6).map(|i| register(&region, i * 4)).collect();
        assert_eq!(values, [2048, 128, 128, 1920, 1200, 0]);
    }

    #[test]
    fn mbochs_ignores_bad_accesses_and_gvt_says_efault() {
        let mut mbochs = EdidRegion::new(MBOCHS, (0, 0));
        let mut gvt = EdidRegion::new(GVT, (1024, 768));
        let mut two = [9; 2];
        assert_eq!(mbochs.read(0, &mut two), Ok(()));
        assert_eq!(two, [0, 0]);
        assert_eq!(gvt.read(0, &mut two), Err(Errno::FAULT));
        for (offset, value) in [(0, 1), (2, 1), (8, 5000), (12, 1), (20, 3), (24, 0), (4000, 0)] {
            assert_eq!(write(&mut mbochs, offset, value), Ok(()), "{offset}");
            assert_eq!(write(&mut gvt, offset, value), Err(Errno::FAULT), "{offset}");
        }
        assert_eq!(register(&mbochs, 8), 0);
        assert_eq!(register(&gvt, 8), 128);
    }

    #[test]
    fn gvt_wants_the_size_before_the_blob_and_a_sound_blob_before_the_link() {
        let mut gvt = EdidRegion::new(GVT, (1024, 768));
        write(&mut gvt, 8, 0).unwrap();
        assert_eq!(gvt.write(2048, &[0; 128]), Err(Errno::FAULT));
        write(&mut gvt, 8, 128).unwrap();
        gvt.write(2048, &[0; 128]).unwrap();
        assert_eq!(write(&mut gvt, 20, 1), Err(Errno::FAULT));
        gvt.write(2048, &minimal((800, 600))).unwrap();
        assert_eq!(write(&mut gvt, 20, 1), Ok(()));
        let mut extended = minimal((800, 600));
        extended[126] += 1;
        extended[127] -= 1;
        gvt.write(2048, &extended).unwrap();
        assert_eq!(write(&mut gvt, 20, 1), Err(Errno::FAULT));
    }

    #[test]
    fn the_guest_sees_the_blob_while_the_link_is_up() {
        let mut region = EdidRegion::new(MBOCHS, (0, 0));
        write(&mut region, 8, 128).unwrap();
        region.write(2048, &[7; 200]).unwrap();
        let mut seen = [1; 4];
        region.guest_read(0, &mut seen);
        assert_eq!(seen, [0; 4]);
        write(&mut region, 20, 1).unwrap();
        region.guest_read(126, &mut seen);
        assert_eq!(seen, [7, 7, 0, 0]);
        write(&mut region, 20, 2).unwrap();
        region.guest_read(0, &mut seen);
        assert_eq!(seen, [0; 4]);
        assert_eq!(region.links(), 1);
    }

    #[test]
    fn the_preferred_mode_is_decoded() {
        let mode = preferred(&minimal((1920, 1200)));
        assert_eq!((&mode["width"], &mode["height"]), (&json!(1920), &json!(1200)));
        let rate = mode["refresh_millihertz"].as_u64().unwrap();
        assert!((59_900..=60_100).contains(&rate), "{rate}");
        assert_eq!(preferred(&[0; 128]), Value::Null);
        assert_eq!(preferred(&[]), Value::Null);
    }
}

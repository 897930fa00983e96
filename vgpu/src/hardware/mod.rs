//! Parts of the hardware, each by itself: PCI configuration space, the bochs registers, EDID, and
//! the display interrupt. `device` puts them together.

pub mod dispi;
pub mod edid;
pub mod events;
pub mod pci;

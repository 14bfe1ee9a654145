//! Archives in the format that the kernel unpacks before it starts init: cpio's "newc".

/// A directory's type and permissions.
const DIRECTORY: u32 = 0o040_755;
/// A program's type and permissions.
const PROGRAM: u32 = 0o100_755;
/// A character device's type and permissions.
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Archive {
    octets: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory, whose parents have been added before.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a file that may be executed.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, (0, 0), content);
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// Ends the archive and returns it.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.octets
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            links,
            0, // time
            content.len() as u32,
            0, // the device that the file was on, major
            0, // and minor
            device.0,
            device.1,
            path.len() as u32 + 1,
            0, // no checksum
        ];
        self.octets.extend(b"070701");
        for field in fields {
            self.octets.extend(format!("{field:08X}").bytes());
        }
        self.octets.extend(path.bytes());
        self.octets.push(0);
        self.pad();
        self.octets.extend(content);
        self.pad();
    }

    /// Names and contents end at multiples of four octets.
    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_headers_names_and_contents() {
        let mut archive = Archive::default();
        archive.file("init", b"abcde");
        archive.device("console", 5, 1);
        let octets = archive.finish();
        let header = "070701000000010000\
                      81ED0000000000000000000000010000000000000005\
                      0000000000000000000000000000000000000005\
                      00000000";
        assert_eq!(&octets[..110], header.as_bytes());
        // The header is 110 octets long, so that the name ends at 115 and is padded to 116.
        assert_eq!(&octets[110..124], b"init\0\0abcde\0\0\0");
        assert_eq!(&octets[124..130], b"070701");
        assert_eq!(
            &octets[124 + 6 + 9 * 8..124 + 6 + 11 * 8],
            b"0000000500000001"
        );
        assert_eq!(octets.len() % 4, 0);
        let trailer = octets.len() - 124;
        assert_eq!(&octets[trailer + 110..trailer + 121], b"TRAILER!!!\0");
    }
}

//! The control file.

use std::str::SplitWhitespace;

/// A number as functions of the library return it; 0 is success.
pub(crate) type Code = u32;

#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) driver: String,
    pub(crate) init: Code,
    pub(crate) count: Option<u32>,
    pub(crate) delay: u64,
    pub(crate) hangs: Vec<String>,
    pub(crate) answers: Vec<(String, Code)>,
    pub(crate) limits: Limits,
    pub(crate) devices: Vec<Device>,
}

#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(not(feature = "r615"), expect(dead_code, reason = "read by what R615 brought"))]
pub(crate) enum Limits {
    #[default]
    Kept,
    Fail(Code),
    Read(u64, u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    pub(crate) uuid: String,
    /// The number of the device that it is a slice of.
    pub(crate) parent: Option<String>,
    pub(crate) mig: bool,
    pub(crate) name: String,
    /// Total, reserved, used.
    pub(crate) memory: [u64; 3],
    pub(crate) busy: u32,
    pub(crate) compute: Vec<(u32, u64)>,
    pub(crate) graphics: Vec<(u32, u64)>,
    pub(crate) processes: Option<u32>,
    pub(crate) garbled: bool,
    pub(crate) lost: Option<Code>,
    pub(crate) answers: Vec<(String, Code)>,
    pub(crate) xids: Vec<(String, u64)>,
}

impl Control {
    /// A line that makes no sense is a mistake in a test, and ends it.
    pub(crate) fn parse(text: &str) -> Self {
        let mut control = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(word) = words.next() else { continue };
            let rest = line.trim_start().strip_prefix(word).unwrap_or_default().trim();
            control.line(word, rest, words);
        }
        control
    }

    fn line(&mut self, word: &str, rest: &str, mut words: SplitWhitespace<'_>) {
        match word {
            "driver" => self.driver = rest.to_owned(),
            "init" => self.init = number(words.next()),
            "count" => self.count = Some(number(words.next())),
            "delay" => self.delay = number(words.next()),
            "hang" => self.hangs.push(rest.to_owned()),
            "limits" => {
                self.limits = match words.next() {
                    Some("fail") => Limits::Fail(number(words.next())),
                    Some("read") => Limits::Read(number(words.next()), number(words.next())),
                    other => panic!("limits {other:?}"),
                }
            }
            "device" => self.devices.push(Device { uuid: rest.to_owned(), ..Device::default() }),
            "slice" => {
                let whole = self.devices.iter_mut().rev().find(|device| device.parent.is_none());
                let whole = whole.expect("a slice comes after its device");
                whole.mig = true;
                let parent = Some(whole.uuid.clone());
                self.devices.push(Device { uuid: rest.to_owned(), parent, ..Device::default() });
            }
            "answer" => {
                let answer = (words.next().expect("a function").to_owned(), number(words.next()));
                match self.devices.last_mut() {
                    Some(device) => device.answers.push(answer),
                    None => self.answers.push(answer),
                }
            }
            _ => self.devices.last_mut().expect("a device").line(word, rest, words),
        }
    }

    pub(crate) fn device(&self, uuid: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.uuid == uuid)
    }

    /// Those that are not slices.
    pub(crate) fn wholes(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.parent.is_none())
    }
}

impl Device {
    fn line(&mut self, word: &str, rest: &str, mut words: SplitWhitespace<'_>) {
        match word {
            "mig" => self.mig = true,
            "name" => self.name = rest.to_owned(),
            "memory" => self.memory = [(); 3].map(|()| number(words.next())),
            "busy" => self.busy = number(words.next()),
            "compute" => self.compute.push((number(words.next()), bytes(words.next()))),
            "graphics" => self.graphics.push((number(words.next()), bytes(words.next()))),
            "processes" => self.processes = Some(number(words.next())),
            "garbled" => self.garbled = true,
            "lost" => self.lost = Some(number(words.next())),
            "xid" => {
                let event = words.next().expect("a name for the event").to_owned();
                self.xids.push((event, number(words.next())));
            }
            other => panic!("{other} is no word of a control file"),
        }
    }
}

fn number<T: std::str::FromStr>(word: Option<&str>) -> T {
    let parsed = word.and_then(|word| word.parse().ok());
    parsed.unwrap_or_else(|| panic!("{word:?} is not the number that is expected"))
}

/// What cannot be said is all ones.
fn bytes(word: Option<&str>) -> u64 {
    if word == Some("unknown") { u64::MAX } else { number(word) }
}

//! Requests whose right answer is known, and what else may come back.

use std::io;
use std::path::Path;
use std::time::Duration;

use tests::{Infer, Response};

use crate::fleet::{Engine, Torch};
use crate::journal::Journal;

const PIXELS: usize = 64;
const CLASSES: usize = 10;

/// How far the logits of two runs of the same model may lie apart.
const NEAR: f32 = 1e-3;

/// The deadline of requests to victims, and what a busy machine may take on top.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(2 + 6);

/// A witness waits its turn on the processors; a lost request is one that takes longer than this.
const WITNESS_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) infer: Infer,
    right: Right,
}

#[derive(Clone, Debug)]
enum Right {
    Bytes(Vec<u8>),
    Logits(Vec<f32>),
}

/// What may be answered, other than what is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// Nothing else.
    None,
    /// What is documented for a model whose worker may end, and that may be unloaded.
    Faults,
    /// Also what is documented for clients and requests that are odd themselves.
    Oddities,
}

/// Makes questions, each different from the ones before.
#[derive(Debug)]
pub(crate) struct Questions {
    model: &'static str,
    /// Of the one who asks; no two ask the same.
    asker: u16,
    number: u16,
    images: Option<Images>,
}

#[derive(Debug)]
struct Images {
    pixels: Vec<f32>,
    logits: Vec<f32>,
}

impl Questions {
    pub(crate) fn new(
        model: &'static str,
        asker: u16,
        engine: Engine,
        torch: Option<&Torch>,
    ) -> Self {
        let torch = torch.filter(|_| engine == Engine::Torch);
        Self { model, asker, number: 0, images: torch.map(|torch| Images::read(&torch.data)) }
    }

    pub(crate) fn next(&mut self) -> Question {
        self.number = self.number.wrapping_add(1);
        match &self.images {
            Some(images) => images.question(self.model, self.number.wrapping_add(self.asker)),
            None => self.echo(),
        }
    }

    /// Every sixteenth is too large to be taken before it has a slot.
    fn echo(&self) -> Question {
        let (asker, number) = (f32::from(self.asker), f32::from(self.number));
        let length = if self.number.is_multiple_of(16) { 40_000 } else { 4 };
        let mut values = vec![asker, number];
        values.resize(length, 0.5);
        let infer = Infer::new(self.model).floats(&values);
        let right = Right::Bytes(infer.first().to_vec());
        Question { infer, right }
    }
}

impl Images {
    fn read(folder: &Path) -> Self {
        let read = |name: &str| -> Vec<f32> {
            let bytes = std::fs::read(folder.join(name)).unwrap_or_default();
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        Self { pixels: read("images.f32"), logits: read("logits.f32") }
    }

    fn question(&self, model: &str, number: u16) -> Question {
        let count = self.logits.len() / CLASSES;
        let index = usize::from(number) % count.max(1);
        let image = &self.pixels[index * PIXELS..][..PIXELS];
        let bytes: Vec<u8> = image.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        let infer = Infer::new(model).tensor("image", "FP32", &[1, 1, 8, 8], &bytes);
        Question { infer, right: Right::Logits(self.logits[index * CLASSES..][..CLASSES].to_vec()) }
    }
}

impl Question {
    pub(crate) fn is_answered_by(&self, response: &Response) -> bool {
        let data = response.data();
        let right = match &self.right {
            Right::Bytes(bytes) => data == bytes,
            Right::Logits(logits) => {
                let given: Vec<f32> =
                    data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                given.len() == logits.len()
                    && given.iter().zip(logits).all(|(a, b)| (a - b).abs() < NEAR)
            }
        };
        response.status == 200 && right
    }

    /// Notes the answer, and the violation if it is one.
    pub(crate) fn judge(
        &self,
        journal: &Journal,
        model: &'static str,
        tolerance: Tolerance,
        (outcome, took): (&io::Result<Response>, Duration),
    ) {
        check(journal, model, tolerance, (outcome, took));
        let Ok(response) = outcome else { return };
        let wrong = response.status == 200 && !self.is_answered_by(response);
        if wrong && !journal.may_lie(model, ANSWER_LIMIT) {
            let text: String = response.text().chars().take(300).collect();
            journal.violated(format!("a wrong answer of {model} to {:?}: {text}", self.right));
        }
    }
}

/// Whether there was an answer of a documented kind, in time; what it holds is another matter.
pub(crate) fn check(
    journal: &Journal,
    model: &'static str,
    tolerance: Tolerance,
    (outcome, took): (&io::Result<Response>, Duration),
) {
    let response = match outcome {
        Ok(response) => response,
        Err(error) => {
            return journal.violated(format!("no answer of {model} after {took:?}: {error}"));
        }
    };
    journal.answered(model, response.status, took);
    let tolerated = match tolerance {
        Tolerance::None => response.status == 200,
        Tolerance::Faults => [200, 404, 422, 500, 503, 504].contains(&response.status),
        Tolerance::Oddities => {
            [200, 400, 404, 408, 422, 500, 503, 504, 507].contains(&response.status)
        }
    };
    let limit = if tolerance == Tolerance::None { WITNESS_LIMIT } else { ANSWER_LIMIT };
    let (status, text) = (response.status, response.error());
    if !tolerated {
        journal.violated(format!("status {status} of {model}: {text}"));
    } else if status == 503 && response.header("retry-after").is_none() {
        journal.violated(format!("status 503 of {model} without Retry-After: {text}"));
    } else if took > limit {
        journal.violated(format!("status {status} of {model} only after {took:?}: {text}"));
    }
}

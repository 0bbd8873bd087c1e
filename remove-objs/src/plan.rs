//! What a prefix takes, image by image, and what speaks against it.
//!
//! Does not: delete anything.
//! Invariants: 1. Every key starts with the prefix. 2. An image is judged by its superblock even if
//! the prefix takes only some of its other objects.

use std::collections::BTreeMap;

use lsvd_cli::{Pool, human, table};
use lsvd_common::name::{ImageName, ObjectName};
use lsvd_common::object::superblock::Superblock;
use lsvd_store::{ErrorKind, StoreError};
use serde::Serialize;

/// Names that one listing request returns.
const LIST_PAGE: usize = 1000;

/// Everything that a prefix takes.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) prefix: String,
    /// By name.
    pub(crate) images: Vec<Image>,
    /// Objects that are not ours.
    pub(crate) foreign: Amount,
    /// Superblocks, to be deleted before everything else.
    pub(crate) superblocks: Vec<String>,
    /// All other keys.
    pub(crate) others: Vec<String>,
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Amount {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// What a prefix takes of one image.
#[derive(Debug, Serialize)]
pub(crate) struct Image {
    pub(crate) image: String,
    #[serde(flatten)]
    pub(crate) amount: Amount,
    /// The superblock is among it.
    pub(crate) superblock: bool,
    pub(crate) state: State,
    /// Who has it open.
    pub(crate) owner: Option<String>,
    /// Clones that read its objects.
    pub(crate) clones: Vec<String>,
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nobody has it open.
    Closed,
    /// A gateway has it open, or crashed with it open.
    Open,
    /// Its superblock cannot be read, so nobody knows.
    Damaged,
    /// It has no superblock any more.
    Leftover,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

impl Plan {
    /// Lists and judges.
    pub(crate) async fn make(pool: &Pool, prefix: &str) -> Result<Self, StoreError> {
        let mut plan = Self {
            prefix: prefix.to_owned(),
            images: Vec::new(),
            foreign: Amount::default(),
            superblocks: Vec::new(),
            others: Vec::new(),
        };
        let mut found: BTreeMap<ImageName, (Amount, bool)> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = pool.store.list(prefix, None, after.as_deref(), LIST_PAGE).await?;
            for (key, bytes) in page.objects {
                plan.sort(&mut found, key, bytes);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for (name, (amount, superblock)) in found {
            plan.images.push(judge(pool, &name, amount, superblock).await?);
        }
        Ok(plan)
    }

    fn sort(&mut self, found: &mut BTreeMap<ImageName, (Amount, bool)>, key: String, bytes: u64) {
        let Some(name) = ObjectName::parse(&key) else {
            self.foreign.add(bytes);
            self.others.push(key);
            return;
        };
        let (amount, superblock) = found.entry(name.image().clone()).or_default();
        amount.add(bytes);
        if let ObjectName::Superblock(_) = name {
            *superblock = true;
            self.superblocks.push(key);
        } else {
            self.others.push(key);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.superblocks.is_empty() && self.others.is_empty()
    }

    /// All of it.
    pub(crate) fn total(&self) -> Amount {
        let mut total = self.foreign;
        for image in &self.images {
            total.objects += image.amount.objects;
            total.bytes += image.amount.bytes;
        }
        total
    }

    /// Why nothing should be deleted without force; empty if there is no reason.
    pub(crate) fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        for Image { image, state, owner, clones, .. } in &self.images {
            match (state, owner) {
                (State::Open, owner) => {
                    let owner = owner.as_deref().unwrap_or("a gateway");
                    objections.push(format!("image {image} is in use by {owner}"));
                }
                (State::Damaged, _) => objections.push(format!(
                    "the superblock of image {image} is damaged, so nobody knows whether it is in \
                     use"
                )),
                (State::Closed | State::Leftover, _) => {}
            }
            if !clones.is_empty() {
                objections.push(format!("{} read objects of image {image}", clones.join(", ")));
            }
        }
        objections
    }

    /// What whoever typed the prefix may not have meant.
    pub(crate) fn surprises(&self) -> Vec<String> {
        let mut surprises = Vec::new();
        let typed = self.prefix.split_once('/').map_or(self.prefix.as_str(), |(image, _)| image);
        let others: Vec<&str> = self
            .images
            .iter()
            .map(|image| image.image.as_str())
            .filter(|name| *name != typed)
            .collect();
        let meant = self.images.len() > others.len();
        if meant && !others.is_empty() {
            surprises.push(format!(
                "the prefix also takes {}; --image {typed} takes image {typed} alone",
                others.join(", ")
            ));
        } else if others.len() > 1 {
            surprises.push(format!("the prefix takes {} images", others.len()));
        }
        for image in &self.images {
            if !image.superblock && image.state != State::Leftover {
                surprises.push(format!(
                    "the prefix takes a part of image {} and leaves its superblock: what is left \
                     will not open",
                    image.image
                ));
            }
        }
        if self.foreign.objects > 0 {
            let count = human::count(self.foreign.objects, "object");
            surprises.push(format!("the prefix takes {count} that this software did not write"));
        }
        surprises
    }

    /// The plan for people.
    pub(crate) fn text(&self) -> String {
        let mut lines = table(["IMAGE", "OBJECTS", "SIZE", "BYTES", "STATE"]);
        let mut add = |name: &str, amount: Amount, state: &str| {
            let Amount { objects, bytes } = amount;
            let name = name.to_owned();
            let (size, exact) = (human::bytes(bytes), bytes.to_string());
            lines.add_row([name, objects.to_string(), size, exact, state.to_owned()]);
        };
        for image in &self.images {
            let state = match (image.state, &image.owner) {
                (State::Open, Some(owner)) => format!("open: {owner}"),
                (State::Open, None) => "open".to_owned(),
                (State::Closed, _) => "closed".to_owned(),
                (State::Damaged, _) => "superblock damaged".to_owned(),
                (State::Leftover, _) => "no superblock".to_owned(),
            };
            add(&image.image, image.amount, &state);
        }
        if self.foreign.objects > 0 {
            add("(not ours)", self.foreign, "");
        }
        add("total", self.total(), "");
        format!("{}\n", lines.trim_fmt())
    }
}

async fn judge(
    pool: &Pool,
    name: &ImageName,
    amount: Amount,
    superblock: bool,
) -> Result<Image, StoreError> {
    let mut image = Image {
        image: name.to_string(),
        amount,
        superblock,
        state: State::Leftover,
        owner: None,
        clones: Vec::new(),
    };
    let body = match pool.store.get(&name.superblock()).await {
        Ok(object) => object.body,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(image),
        Err(error) => return Err(error),
    };
    let Ok(known) = Superblock::decode(&body) else {
        image.state = State::Damaged;
        return Ok(image);
    };
    image.clones =
        known.children.iter().map(|child| child.name.escape_debug().to_string()).collect();
    image.state = State::Closed;
    if let Some(owner) = known.owner {
        image.state = State::Open;
        image.owner = Some(format!(
            "{} (process {}, since {})",
            owner.host.escape_debug(),
            owner.pid,
            human::time(owner.claimed_ms)
        ));
    }
    Ok(image)
}

#[cfg(test)]
mod test {
    use super::*;

    fn image(name: &str, superblock: bool, state: State) -> Image {
        Image {
            image: name.to_owned(),
            amount: Amount { objects: 1, bytes: 10 },
            superblock,
            state,
            owner: None,
            clones: Vec::new(),
        }
    }

    fn plan(prefix: &str, images: Vec<Image>) -> Plan {
        Plan {
            prefix: prefix.to_owned(),
            images,
            foreign: Amount::default(),
            superblocks: Vec::new(),
            others: Vec::new(),
        }
    }

    #[test]
    fn a_prefix_that_also_takes_another_image_is_pointed_out_by_name() {
        let both = vec![image("disk1", true, State::Closed), image("disk10", true, State::Closed)];
        let surprises = plan("disk1", both).surprises();
        assert_eq!(surprises.len(), 1, "{surprises:?}");
        assert!(surprises[0].contains("also takes disk10; --image disk1"), "{surprises:?}");
        let one = vec![image("disk1", true, State::Closed)];
        assert!(plan("disk1/", one).surprises().is_empty());
    }

    #[test]
    fn a_part_of_an_image_is_pointed_out_but_leftovers_are_not() {
        let part = vec![image("disk1", false, State::Closed)];
        assert!(plan("disk1/00", part).surprises()[0].contains("a part of image disk1"));
        let rest = vec![image("disk1", false, State::Leftover)];
        assert!(plan("disk1/00", rest).surprises().is_empty());
    }

    #[test]
    fn open_damaged_and_cloned_images_are_objected_to() {
        let mut base = image("c", true, State::Closed);
        base.clones.push("d".to_owned());
        let images = vec![image("a", true, State::Open), image("b", true, State::Damaged), base];
        assert_eq!(plan("", images).objections().len(), 3);
    }
}

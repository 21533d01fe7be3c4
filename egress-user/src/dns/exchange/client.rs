//! A client that waits for a reply, and the replies that it may get.

use egress_common::{Protocol, Verdict};
use jiff::Timestamp;

use super::Turn;
use crate::{
    dns::{
        admission::Refusal,
        message::Question,
        question::{Asker, Ticket, Transport},
        release::{Release, Withheld},
    },
    flow::{
        Lookup,
        lookup::{ALLOWED, Origin, ResponseCode, Told},
    },
    policy::{Policy, RefusalCode, Target},
};

/// Who asked what, and how the reply goes back.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) ticket: Ticket,
    pub(super) asker: Asker,
    pub(super) transport: Transport,
    pub(super) question: Question,
    pub(super) time: Timestamp,
    /// What the policy has against the question, which it lets through because it only audits.
    pub(super) exempt: Option<Refused>,
}

/// What a policy has against a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) allow: Option<String>,
    /// Whether the policy has nothing against the name, which is not denied then: musl takes "no such name" for one type
    /// as the answer for all.
    pub(super) is_name_allowed: bool,
}

impl Refused {
    /// What is told of a refusal.
    pub(super) fn by(refusal: Refusal, question: &Question, policy: &Policy) -> Self {
        let allow = match refusal {
            Refusal::NoRule | Refusal::LongLabel => question.name().map(|name| format!("- {name}:443/tcp")),
            Refusal::UnknownAddress(address) | Refusal::Withheld(Withheld { address, reason: _ }) => {
                // A bracket begins a list in YAML.
                Some(format!("- \"{}\"", Target::Address(address).rule(Protocol::Tcp, 443)))
            }
            Refusal::NotAName | Refusal::NotAnAddress | Refusal::Type | Refusal::OverBudget(_) => None,
        };
        let is_name_allowed = matches!(refusal, Refusal::Type | Refusal::Withheld(_));
        Self { reason: refusal.name(), message: refusal.message(question, policy), allow, is_name_allowed }
    }
}

impl Client {
    /// An answer, which is so many seconds old.
    pub(super) fn answer(self, release: &Release, age_seconds: u32, origin: Origin) -> [Turn; 2] {
        let reply = self.question.answer(self.transport, release, age_seconds);
        let code = if release.exists { ResponseCode::NoError } else { ResponseCode::NxDomain };
        self.end(reply, Verdict::Allow, None, code, origin, told(release))
    }

    /// The refusal that the policy makes of it.
    pub(super) fn refuse(self, code: RefusalCode, refused: Refused) -> [Turn; 2] {
        self.deny(code, refused, Origin::Policy, Told::default())
    }

    /// The same, after name servers gave an answer of which nothing is left.
    pub(super) fn refuse_with(
        self,
        code: RefusalCode,
        refused: Refused,
        release: &Release,
        origin: Origin,
    ) -> [Turn; 2] {
        self.deny(code, refused, origin, told(release))
    }

    /// Name servers gave no answer.
    pub(super) fn fail(self, text: &str, origin: Origin) -> [Turn; 2] {
        let reply = self.question.fail(text);
        let failed = Refused { reason: ALLOWED, message: text.to_owned(), allow: None, is_name_allowed: true };
        self.end(reply, Verdict::Allow, Some(failed), ResponseCode::ServFail, origin, Told::default())
    }

    /// It is our fault that there is no answer.
    pub(super) fn turn_away(self, reason: &'static str, text: &str, origin: Origin) -> [Turn; 2] {
        let reply = self.question.fail(text);
        let failed = Refused { reason, message: text.to_owned(), allow: None, is_name_allowed: true };
        self.end(reply, Verdict::Deny, Some(failed), ResponseCode::ServFail, origin, Told::default())
    }

    fn deny(self, code: RefusalCode, refused: Refused, origin: Origin, told: Told) -> [Turn; 2] {
        let (reply, code) = match code {
            RefusalCode::NxDomain if refused.is_name_allowed => {
                (self.question.withhold(&refused.message), ResponseCode::NoError)
            }
            RefusalCode::NxDomain => (self.question.refuse(code, &refused.message), ResponseCode::NxDomain),
            RefusalCode::Refused => (self.question.refuse(code, &refused.message), ResponseCode::Refused),
        };
        self.end(reply, Verdict::Deny, Some(refused), code, origin, told)
    }

    fn end(
        self,
        reply: Vec<u8>,
        verdict: Verdict,
        refused: Option<Refused>,
        code: ResponseCode,
        source: Origin,
        told: Told,
    ) -> [Turn; 2] {
        let exempt = self.exempt.map(|exempt| Refused {
            message: format!("let through, because the policy only audits: {}", exempt.message),
            ..exempt
        });
        // What was let through counts as that, whatever came of it then.
        let (reason, message, allow) = match (exempt, refused) {
            (Some(Refused { reason, message, allow, .. }), _)
            | (None, Some(Refused { reason, message, allow, .. })) => (reason, Some(message), allow),
            (None, None) => (ALLOWED, None, None),
        };
        let lookup = Lookup {
            time: self.time,
            asker: self.asker,
            transport: self.transport,
            name: self.question.spelled().to_owned(),
            kind: self.question.kind(),
            verdict,
            reason,
            code,
            source,
            told,
            message,
            allow,
        };
        [Turn::Reply(self.ticket, Some(reply)), Turn::Finish(Box::new(lookup))]
    }
}

fn told(release: &Release) -> Told {
    Told {
        addresses: release.addresses.iter().map(|(address, _)| *address).collect(),
        aliases: release.aliases.clone(),
        withheld: release.withheld.iter().map(|withheld| withheld.address).collect(),
    }
}

//! A question in Cedar's words: principal, action, resource, circumstances, and the
//! entities they name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    str::FromStr,
};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
    Schema,
};

use super::{Action, Asking, Roles};
use crate::key::{Key, KeySpec, Labels, TenantId};

/// What policies see of a key.
pub(super) struct Seen<'a> {
    pub(super) uid: String,
    pub(super) tenant: TenantId,
    pub(super) name: &'a str,
    pub(super) spec: KeySpec,
    pub(super) labels: &'a Labels,
}

impl<'a> Seen<'a> {
    pub(super) fn of(key: &'a Key) -> Self {
        Self {
            uid: key.id.to_string(),
            tenant: key.tenant,
            name: key.name.as_str(),
            spec: key.spec,
            labels: &key.labels,
        }
    }

    fn entity(&self) -> Result<Entity, String> {
        let tenant = uid("Tenant", &self.tenant.to_string())?;
        let attributes = [
            (
                "tenant".to_owned(),
                RestrictedExpression::new_entity_uid(tenant.clone()),
            ),
            ("name".to_owned(), text(self.name)),
            ("spec".to_owned(), text(self.spec.name())),
            ("use".to_owned(), text(self.spec.key_use().name())),
        ];
        let uid = uid("Key", &self.uid)?;
        Entity::new_with_tags(uid, attributes, [tenant], tags(self.labels.pairs()))
            .map_err(|e| e.to_string())
    }
}

/// What policies see of a profile.
pub(super) struct SeenProfile<'a> {
    pub(super) tenant: TenantId,
    pub(super) name: &'a str,
}

impl SeenProfile<'_> {
    fn entity(&self) -> Result<Entity, String> {
        let tenant = uid("Tenant", &self.tenant.to_string())?;
        let attributes = HashMap::from([
            (
                "tenant".to_owned(),
                RestrictedExpression::new_entity_uid(tenant.clone()),
            ),
            ("name".to_owned(), text(self.name)),
        ]);
        // The name alone is not unique: every tenant may have one.
        let uid = uid("Profile", &format!("{}/{}", self.tenant, self.name))?;
        Entity::new(uid, attributes, HashSet::from([tenant])).map_err(|e| e.to_string())
    }
}

/// What a question is about.
pub(super) enum Resource<'a> {
    /// The caller's tenant.
    Tenant,
    /// A key.
    Key(&'a Seen<'a>),
    /// A profile.
    Profile(&'a SeenProfile<'a>),
}

/// The question whether the caller may do this.
pub(super) fn request(
    schema: &Schema,
    roles: &Roles,
    asking: &Asking<'_>,
    action: Action,
    resource: &Resource<'_>,
) -> Result<(Request, Entities), String> {
    let caller = asking.caller;
    let principal = uid("Workload", caller.id.as_str())?;
    let tenant = uid("Tenant", &caller.tenant.to_string())?;
    let roles = roles
        .of(&caller.id)
        .map(|r| uid("Role", r))
        .collect::<Result<HashSet<_>, _>>()?;
    let attributes = HashMap::from([
        (
            "tenant".to_owned(),
            RestrictedExpression::new_entity_uid(tenant.clone()),
        ),
        ("tenant_name".to_owned(), text(&caller.tenant_name)),
        ("id".to_owned(), text(caller.id.as_str())),
        ("path".to_owned(), text(caller.id.path())),
        ("trust_domain".to_owned(), text(caller.id.trust_domain())),
    ]);
    let mut entities: Vec<Entity> = roles.iter().cloned().map(Entity::with_uid).collect();
    entities.push(Entity::with_uid(tenant.clone()));
    entities.push(Entity::new(principal.clone(), attributes, roles).map_err(|e| e.to_string())?);
    let entity = match resource {
        Resource::Tenant => None,
        Resource::Key(key) => Some(key.entity()?),
        Resource::Profile(profile) => Some(profile.entity()?),
    };
    let resource = entity.as_ref().map_or(tenant, Entity::uid);
    entities.extend(entity);
    let (context, pairs) = circumstances(asking)?;
    entities.push(pairs);
    let action = uid("Action", action.name())?;
    let request = Request::new(principal, action, resource, context, Some(schema))
        .map_err(|e| e.to_string())?;
    let entities = Entities::from_entities(entities, Some(schema)).map_err(|e| e.to_string())?;
    Ok((request, entities))
}

fn circumstances(asking: &Asking<'_>) -> Result<(Context, Entity), String> {
    let none = BTreeMap::new();
    let pairs = asking.context.map_or(&none, |c| c.pairs());
    let entity = Entity::new_with_tags(uid("Pairs", "of this request")?, [], [], tags(pairs))
        .map_err(|e| e.to_string())?;
    let record = [
        (
            "now".to_owned(),
            RestrictedExpression::new_datetime(moment(asking.now_ms)),
        ),
        (
            "pairs".to_owned(),
            RestrictedExpression::new_entity_uid(entity.uid()),
        ),
    ];
    let context = Context::from_pairs(record).map_err(|e| e.to_string())?;
    Ok((context, entity))
}

/// As Cedar writes a datetime.
fn moment(ms: i64) -> String {
    crate::clock::rfc3339(ms)
}

fn tags(
    pairs: &BTreeMap<String, String>,
) -> impl Iterator<Item = (String, RestrictedExpression)> + '_ {
    pairs.iter().map(|(k, v)| (k.clone(), text(v)))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(kind).map_err(|e| e.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

//! What a capture says about a database: the JSON document in `SourceRecord::facts`.
//!
//! It has two halves. [`Inventory`] is what [`inspect`](super::inspect::inspect) reads from any database, captured or
//! restored; two inventories compare object by object, because every definition is text made by the server under the same
//! session settings. [`TableData`] and [`SequenceValue`] say what was captured: rows, bytes and digests, and where they lie.
//! A restore is proved by comparing both against the restored database. Fields may be added within a version; a reader
//! refuses a version that it does not know.

use mainstay_domain::Time;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The version of the document that this code writes.
pub const FACTS_VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub version: u32,
    pub server: Server,
    pub snapshot: Snapshot,
    /// The session settings under which rows were read, and on which their text and so the digests depend.
    pub session: BTreeMap<String, String>,
    pub inventory: Inventory,
    /// Every table whose rows could have been captured, in order of schema and name: captured or skipped, and why.
    pub tables: Vec<TableData>,
    pub sequences: Vec<SequenceValue>,
    pub large_objects: LargeObjects,
    /// What could not be read, or was left out on purpose.
    pub unread: Vec<Unread>,
    /// The names of the streams that are not table data: `schema`, `globals`, `blobs`.
    pub streams: Vec<String>,
    /// Whether the roles in `globals` carry their password hashes.
    pub role_passwords: bool,
}

/// The facts could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("the facts of this source are version {0}, newer than this program knows")]
    Newer(u32),
    #[error("the facts of this source are malformed")]
    Malformed(#[from] serde_json::Error),
}

impl Facts {
    pub fn to_json(&self) -> Result<String, FactsError> {
        Ok(serde_json::to_string(self)?)
    }

    pub fn from_json(text: &str) -> Result<Facts, FactsError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text)?;
        if version > FACTS_VERSION {
            return Err(FactsError::Newer(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    pub fn table(&self, schema: &str, name: &str) -> Option<&TableData> {
        self.tables.iter().find(|t| t.schema == schema && t.name == name)
    }
}

/// The server that was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// As the server says it: `15.14 (Debian 15.14-0+deb12u1)`.
    pub version: String,
    /// `server_version_num`: 150014.
    pub version_num: u32,
    /// From `pg_control_system()`, where the user may read it.
    pub system_identifier: Option<String>,
    /// A standby.
    pub in_recovery: bool,
    /// The version of `pg_dump` that wrote `schema`.
    pub pg_dump: String,
}

impl Server {
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }
}

/// The instant whose state was captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// By the server's clock.
    pub at: Time,
    /// The WAL position when the snapshot was taken (`pg_current_wal_lsn`, on a standby `pg_last_wal_replay_lsn`).
    pub lsn: Option<String>,
}

/// A database as the server describes it: everything but rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    pub database: Database,
    pub extensions: Vec<Extension>,
    /// Roles that own something here, are granted something, or have settings or default privileges here.
    pub roles: Vec<String>,
    pub tables: Vec<Table>,
    /// Everything else, in order of kind and identity.
    pub objects: Vec<Object>,
}

impl Inventory {
    pub fn table(&self, schema: &str, name: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.schema == schema && t.name == name)
    }

    pub fn objects_of(&self, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |o| o.kind == kind)
    }
}

/// Properties of the database itself, which `pg_dump` of its contents does not carry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Database {
    pub name: String,
    pub owner: String,
    /// `UTF8`, `LATIN1`, `SQL_ASCII` …
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// The ICU or builtin locale.
    pub locale: Option<String>,
    pub icu_rules: Option<String>,
    pub collation_version: Option<String>,
    pub tablespace: String,
    /// −1: no limit.
    pub connection_limit: i64,
    pub is_template: bool,
    /// Sorted `aclitem` texts; `None` where the default applies.
    pub acl: Option<Vec<String>>,
    pub comment: Option<String>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Setting {
    /// `None`: for every role.
    pub role: Option<String>,
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
    pub schema: String,
}

/// A schema and a name in it, neither of them quoted. Shown as a person writes it: `public.orders`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualifiedName {
    pub schema: String,
    pub name: String,
}

impl QualifiedName {
    /// As SQL takes it: `"public"."orders"`.
    pub fn quoted(&self) -> String {
        super::wire::quote_qualified(&self.schema, &self.name)
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What kind of relation holds, or stands for, rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// An ordinary table, or a child in an inheritance tree.
    Table,
    /// The root (or an inner node) of a partition tree: holds no rows of its own.
    Partitioned,
    /// A leaf of a partition tree.
    Partition,
    /// The rows are elsewhere.
    Foreign,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub kind: TableKind,
    pub unlogged: bool,
    pub owner: String,
    pub columns: Vec<Column>,
    /// The partition key of a partitioned table, as `pg_get_partkeydef` writes it.
    pub partition_key: Option<String>,
    /// `FOR VALUES …` of a partition.
    pub partition_bound: Option<String>,
    /// Parents, in order.
    pub inherits: Vec<QualifiedName>,
    pub row_security: bool,
    pub force_row_security: bool,
    /// `d` default, `n` nothing, `f` full, `i` index.
    pub replica_identity: String,
    pub access_method: Option<String>,
    pub tablespace: Option<String>,
    /// Storage parameters, the TOAST table's with `toast.` before them; options of a foreign table; sorted.
    pub options: Vec<String>,
    pub acl: Option<Vec<String>>,
    pub comment: Option<String>,
    /// The extension that owns it.
    pub extension: Option<String>,
    /// Where its extension marked it as configuration: the condition of the rows that are the user's; empty for all.
    pub extension_condition: Option<String>,
}

impl Table {
    /// `"schema"."name"`.
    pub fn quoted(&self) -> String {
        super::wire::quote_qualified(&self.schema, &self.name)
    }

    /// The columns that COPY carries, in order: all but generated ones.
    pub fn copy_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.generated.is_none())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// `format_type`: `character varying(20)`.
    pub r#type: String,
    pub not_null: bool,
    pub default: Option<String>,
    /// The expression of a generated column, with `STORED` or `VIRTUAL` behind it.
    pub generated: Option<String>,
    /// `a` always, `d` by default.
    pub identity: Option<String>,
    /// Where it is not the type's own.
    pub collation: Option<String>,
    /// `p` plain, `e` external, `m` main, `x` extended, where it is not the type's own.
    pub storage: Option<String>,
    /// `p` pglz, `l` lz4, where set.
    pub compression: Option<String>,
    /// `ALTER COLUMN … SET STATISTICS`, where set.
    pub statistics: Option<i64>,
    pub acl: Option<Vec<String>>,
    pub comment: Option<String>,
}

/// The kinds of [`Object`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    Schema,
    Type,
    Function,
    Operator,
    Cast,
    Collation,
    Conversion,
    TextSearch,
    Sequence,
    View,
    MaterializedView,
    Constraint,
    Index,
    Trigger,
    Rule,
    Policy,
    Statistics,
    ForeignServer,
    Language,
    Publication,
    Subscription,
    EventTrigger,
    DefaultAcl,
    SecurityLabel,
}

impl ObjectKind {
    /// In the words of a message: `materialized view`.
    pub fn words(self) -> &'static str {
        match self {
            ObjectKind::Schema => "schema",
            ObjectKind::Type => "type",
            ObjectKind::Function => "function",
            ObjectKind::Operator => "operator",
            ObjectKind::Cast => "cast",
            ObjectKind::Collation => "collation",
            ObjectKind::Conversion => "conversion",
            ObjectKind::TextSearch => "text search object",
            ObjectKind::Sequence => "sequence",
            ObjectKind::View => "view",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::Constraint => "constraint",
            ObjectKind::Index => "index",
            ObjectKind::Trigger => "trigger",
            ObjectKind::Rule => "rule",
            ObjectKind::Policy => "policy",
            ObjectKind::Statistics => "statistics object",
            ObjectKind::ForeignServer => "foreign server",
            ObjectKind::Language => "language",
            ObjectKind::Publication => "publication",
            ObjectKind::Subscription => "subscription",
            ObjectKind::EventTrigger => "event trigger",
            ObjectKind::DefaultAcl => "default privileges",
            ObjectKind::SecurityLabel => "security label",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.words())
    }
}

/// One object that is not a table: equal objects have equal texts. Members of extensions are not listed; the extension is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    pub kind: ObjectKind,
    /// Unique within its kind, quoted where SQL needs it: `public.orders_pkey`, `audit ON public.orders`, `public.f(integer)`.
    pub identity: String,
    /// Schema it lies in; empty for what has none.
    pub schema: String,
    /// The relation it belongs to: of constraints, indexes, triggers, rules, policies, owned sequences.
    pub table: Option<QualifiedName>,
    /// The server's own text of it.
    pub definition: String,
    pub owner: Option<String>,
    pub acl: Option<Vec<String>>,
    pub comment: Option<String>,
    /// False for constraints NOT VALID, invalid indexes, and materialized views without data.
    pub valid: bool,
}

/// How much a table matters to its owner, and so what follows when it cannot be captured.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Missing: the source has failed.
    Critical,
    /// Missing: the source is incomplete.
    #[default]
    Important,
    /// Missing: a warning.
    Nice,
}

/// The rows of one table, as captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableData {
    pub schema: String,
    pub name: String,
    pub kind: TableKind,
    pub unlogged: bool,
    /// The columns of each row, in COPY's order.
    pub columns: Vec<CopyColumn>,
    pub rows: u64,
    /// Of the rows' text, newlines included.
    pub bytes: u64,
    /// Sum of SipHash-1-3-128(row key, row's bytes with its newline) modulo 2^128, as 32 hexadecimal digits.
    #[serde(with = "digest_hex")]
    pub digest: u128,
    /// In order: `table/public.orders/0` …; empty if nothing was captured.
    pub streams: Vec<String>,
    /// The condition that the captured rows satisfy; the rest was left out.
    pub filter: Option<String>,
    pub priority: Priority,
    pub sensitive: bool,
    /// Why its rows were not captured.
    pub skipped: Option<Skipped>,
}

impl TableData {
    pub fn quoted(&self) -> String {
        super::wire::quote_qualified(&self.schema, &self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyColumn {
    pub name: String,
    pub r#type: String,
}

/// Why a table's rows are not in the recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// A rule says so.
    Excluded,
    /// Its rows are on another server.
    Foreign,
    /// It belongs to an extension, which did not mark it as configuration.
    Extension,
    /// It could not be read, for this reason.
    Unreadable(String),
    /// It was dropped after the tables were listed.
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValue {
    pub schema: String,
    pub name: String,
    pub last_value: i64,
    pub is_called: bool,
}

impl SequenceValue {
    pub fn quoted(&self) -> String {
        super::wire::quote_qualified(&self.schema, &self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LargeObjects {
    pub count: u64,
    /// The stream with their contents, owners and ACLs.
    pub stream: Option<String>,
}

/// Something that is not in the recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// `table`, `sequence`, `large objects`, `role passwords` …
    pub kind: String,
    pub object: String,
    pub reason: String,
}

mod digest_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(digest: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{digest:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = String::deserialize(d)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

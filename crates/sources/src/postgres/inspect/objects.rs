//! Every object that is not a table, as kind, identity and definition.
//!
//! One query for each kind. All give the columns of [`Object`] but its kind; what only newer servers know is left out on
//! older ones.

use super::{USER_SCHEMA, acl, fetch, not_a_member};
use crate::postgres::{
    facts::{Object, ObjectKind},
    wire::{Connection, WireError},
};

/// `SELECT` columns, in SQL. What is not given has a neutral value.
struct Query {
    kind: ObjectKind,
    identity: String,
    schema: &'static str,
    /// Schema and name of the relation that it belongs to.
    table: Option<(&'static str, &'static str)>,
    definition: String,
    owner: Option<&'static str>,
    acl: Option<String>,
    comment: Option<String>,
    valid: &'static str,
    /// From FROM on.
    from: String,
}

impl Query {
    fn new(kind: ObjectKind, identity: &str, definition: &str, from: String) -> Query {
        Query {
            kind,
            identity: identity.to_owned(),
            schema: "''",
            table: None,
            definition: definition.to_owned(),
            owner: None,
            acl: None,
            comment: None,
            valid: "true",
            from,
        }
    }
    /// It lies in schema `n`.
    fn schema(mut self) -> Query {
        self.schema = "n.nspname";
        self
    }
    /// It belongs to relation `c` in schema `n`.
    fn of_table(mut self) -> Query {
        self.table = Some(("n.nspname", "c.relname"));
        self.schema()
    }
    fn owner(mut self, column: &'static str) -> Query {
        self.owner = Some(column);
        self
    }
    fn acl(mut self, column: &str, kind: char) -> Query {
        self.acl = Some(acl(column, kind, self.owner.expect("an object with an ACL has an owner")));
        self
    }
    fn comment(mut self, oid: &str, catalogue: &str) -> Query {
        self.comment = Some(format!("obj_description({oid}, '{catalogue}')"));
        self
    }
    fn valid(mut self, condition: &'static str) -> Query {
        self.valid = condition;
        self
    }

    fn sql(&self) -> String {
        let null = "NULL::text".to_owned();
        let kind = serde_json::to_string(&self.kind).unwrap_or_default().replace('"', "'");
        let table = match self.table {
            Some((schema, name)) => {
                format!(
                    "CASE WHEN {name} IS NOT NULL THEN json_build_object('schema', {schema}, 'name', {name}) END"
                )
            }
            None => null.clone(),
        };
        format!(
            "SELECT {kind} AS kind, {} AS identity, {} AS schema, {table} AS table, COALESCE({}, '') AS definition,
                    {} AS owner, {} AS acl, {} AS comment, {} AS valid {}",
            self.identity,
            self.schema,
            self.definition,
            self.owner.map_or_else(|| null.clone(), |oid| format!("pg_get_userbyid({oid})")),
            self.acl.as_ref().unwrap_or(&null),
            self.comment.as_ref().unwrap_or(&null),
            self.valid,
            self.from
        )
    }
}

/// All objects, in order of kind and identity.
pub(super) fn objects(connection: &mut Connection, version: u32) -> Result<Vec<Object>, WireError> {
    let mut found: Vec<Object> = Vec::new();
    for query in queries(version) {
        found.extend(fetch::<Object>(connection, &query.sql()).map_err(|error| match error {
            WireError::Server(mut message) => {
                message.message = format!("reading each {}: {}", query.kind, message.message);
                WireError::Server(message)
            }
            other => other,
        })?);
    }
    found.sort();
    Ok(found)
}

fn queries(version: u32) -> Vec<Query> {
    let mut queries = relations();
    queries.extend(on_tables(version));
    queries.extend(types_and_functions());
    queries.extend(operators());
    queries.extend(outside_schemas(version));
    queries
}

/// A catalogue whose rows lie in a schema `n`, members of extensions left out.
fn in_schemas(catalogue: &str, alias: &str, prefix: &str) -> String {
    let free = not_a_member(catalogue, &format!("{alias}.oid"));
    format!(
        "FROM {catalogue} {alias} JOIN pg_namespace n ON n.oid = {alias}.{prefix}namespace WHERE {USER_SCHEMA} AND {free}"
    )
}

fn relations() -> Vec<Query> {
    use ObjectKind::{MaterializedView, Schema, Sequence, View};
    let options =
        "COALESCE((SELECT string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest(c.reloptions) o), '')";
    let classes = in_schemas("pg_class", "c", "rel");
    let view = format!("{options} || E'\\n' || pg_get_viewdef(c.oid)");
    let free = not_a_member("pg_namespace", "n.oid");
    let sequences = format!(
        "FROM pg_class q JOIN pg_namespace n ON n.oid = q.relnamespace JOIN pg_sequence s ON s.seqrelid = q.oid
           LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = q.oid AND d.objsubid = 0
                 AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
           LEFT JOIN pg_class c ON c.oid = d.refobjid
           LEFT JOIN pg_namespace cn ON cn.oid = c.relnamespace
           LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
          WHERE {USER_SCHEMA} AND q.relpersistence <> 't' AND {}",
        not_a_member("pg_class", "q.oid")
    );
    let mut sequence = Query::new(
        Sequence,
        "format('%I.%I', n.nspname, q.relname)",
        "format('AS %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s%s', s.seqtypid::regtype, s.seqstart,
                s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END,
                CASE WHEN a.attname IS NOT NULL THEN format(' OWNED BY %I.%I.%I', cn.nspname, c.relname, a.attname)
                ELSE '' END)",
        sequences,
    )
    .schema()
    .owner("q.relowner")
    .acl("q.relacl", 's')
    .comment("q.oid", "pg_class");
    sequence.table = Some(("cn.nspname", "c.relname"));
    vec![
        Query::new(
            Schema,
            "quote_ident(n.nspname)",
            "''",
            format!("FROM pg_namespace n WHERE {USER_SCHEMA} AND {free}"),
        )
        .schema()
        .owner("n.nspowner")
        .acl("n.nspacl", 'n')
        .comment("n.oid", "pg_namespace"),
        sequence,
        Query::new(
            View,
            QUALIFIED,
            &view,
            format!("{classes} AND c.relkind = 'v' AND c.relpersistence <> 't'"),
        )
        .schema()
        .owner("c.relowner")
        .acl("c.relacl", 'r')
        .comment("c.oid", "pg_class"),
        Query::new(MaterializedView, QUALIFIED, &view, format!("{classes} AND c.relkind = 'm'"))
            .schema()
            .owner("c.relowner")
            .acl("c.relacl", 'r')
            .comment("c.oid", "pg_class")
            .valid("c.relispopulated"),
    ]
}

const QUALIFIED: &str = "format('%I.%I', n.nspname, c.relname)";

fn on_tables(version: u32) -> Vec<Query> {
    use ObjectKind::{Constraint, Index, Policy, Rule, Statistics, Trigger};
    let free = not_a_member("pg_class", "c.oid");
    let tables = format!(
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMA} AND c.relpersistence <> 't' AND {free}"
    );
    let on = |name: &str| format!("format('%I ON %I.%I', {name}, n.nspname, c.relname)");
    // 18 lists NOT NULL among the constraints; the column says it on every version. What a partition has from its parent is
    // said of the parent, and its name is chosen otherwise by each version.
    let constraint = if version >= 180_000 {
        "pg_get_constraintdef(k.oid) || CASE WHEN k.conenforced THEN '' ELSE ' (not enforced)' END"
    } else {
        "pg_get_constraintdef(k.oid)"
    };
    vec![
        Query::new(
            Constraint,
            &on("k.conname"),
            constraint,
            format!("FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid {tables} AND k.contype NOT IN ('n', 't')
                       AND k.conparentid = 0"),
        )
        .of_table()
        .comment("k.oid", "pg_constraint")
        .valid("k.convalidated"),
        Query::new(
            Index,
            "format('%I.%I', n.nspname, i.relname)",
            "pg_get_indexdef(i.oid) || CASE WHEN x.indisclustered THEN ' (clustered)' ELSE '' END
                 || CASE WHEN x.indisreplident THEN ' (replica identity)' ELSE '' END",
            format!("FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid {tables}"),
        )
        .of_table()
        .comment("i.oid", "pg_class")
        .valid("x.indisvalid"),
        Query::new(
            Trigger,
            &on("t.tgname"),
            "pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' (state ' || t.tgenabled::text || ')' END",
            format!("FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid {tables} AND NOT t.tgisinternal AND t.tgparentid = 0"),
        )
        .of_table()
        .comment("t.oid", "pg_trigger"),
        Query::new(
            Rule,
            &on("r.rulename"),
            "pg_get_ruledef(r.oid) || CASE r.ev_enabled WHEN 'O' THEN '' ELSE ' (state ' || r.ev_enabled::text || ')' END",
            format!("FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class {tables} AND r.rulename <> '_RETURN'"),
        )
        .of_table()
        .comment("r.oid", "pg_rewrite"),
        Query::new(
            Policy,
            &on("p.polname"),
            "format('%s FOR %s TO %s', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, p.polcmd,
                    (SELECT string_agg(CASE WHEN o = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ', '
                                       ORDER BY pg_get_userbyid(o) COLLATE \"C\") FROM unnest(p.polroles) o))
                 || COALESCE(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
                 || COALESCE(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')",
            format!("FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid {tables}"),
        )
        .of_table()
        .comment("p.oid", "pg_policy"),
        Query::new(
            Statistics,
            "format('%I.%I', n.nspname, s.stxname)",
            "pg_get_statisticsobjdef(s.oid)",
            format!("FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid {tables}"),
        )
        .of_table()
        .owner("s.stxowner")
        .comment("s.oid", "pg_statistic_ext"),
    ]
}

fn types_and_functions() -> Vec<Query> {
    use ObjectKind::{Function, Type};
    let types = in_schemas("pg_type", "t", "typ");
    // Constructors of ranges come and go with their type, and take their rights from the hour of its making.
    let functions = format!(
        "{} AND NOT EXISTS (SELECT 1 FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid
                               AND i.deptype = 'i')",
        in_schemas("pg_proc", "p", "pro")
    );
    let collation = "COALESCE((SELECT format(' COLLATE %I.%I', cn.nspname, co.collname) FROM pg_collation co
                       JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = a.attcollation
                        AND a.attcollation <> (SELECT typcollation FROM pg_type y WHERE y.oid = a.atttypid)), '')";
    let signature = "format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))";
    vec![
        Query::new(
            Type,
            "format('%I.%I', n.nspname, t.typname)",
            &format!(
                "CASE t.typtype
                 WHEN 'e' THEN 'ENUM ' || (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
                                             FROM pg_enum WHERE enumtypid = t.oid)
                 WHEN 'd' THEN 'DOMAIN ' || format_type(t.typbasetype, t.typtypmod)
                     || COALESCE(' DEFAULT ' || t.typdefault, '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
                     || COALESCE((SELECT string_agg(format(' CONSTRAINT %I %s', conname, pg_get_constraintdef(k.oid)), ''
                                                    ORDER BY conname COLLATE \"C\")
                                    FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
                 WHEN 'c' THEN 'COMPOSITE ' || COALESCE((SELECT string_agg(format('%I %s', a.attname,
                                 format_type(a.atttypid, a.atttypmod)) || {collation}, ', ' ORDER BY a.attnum)
                                FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), '')
                 WHEN 'r' THEN (SELECT 'RANGE OF ' || format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid)
                 WHEN 'b' THEN format('BASE %s %s LENGTH %s STORAGE %s', t.typinput, t.typoutput, t.typlen, t.typstorage)
                 ELSE t.typtype::text END"
            ),
            format!(
                "{types} AND t.typtype <> 'm'
                 AND (t.typrelid = 0 OR (SELECT relkind FROM pg_class WHERE oid = t.typrelid) = 'c')
                 AND NOT EXISTS (SELECT 1 FROM pg_type el WHERE el.typarray = t.oid)"
            ),
        )
        .schema()
        .owner("t.typowner")
        .acl("t.typacl", 'T')
        .comment("t.oid", "pg_type"),
        Query::new(Function, signature, "pg_get_functiondef(p.oid)", format!("{functions} AND p.prokind <> 'a'"))
            .schema()
            .owner("p.proowner")
            .acl("p.proacl", 'f')
            .comment("p.oid", "pg_proc"),
        Query::new(
            Function,
            signature,
            "format('AGGREGATE SFUNC %s STYPE %s FINAL %s COMBINE %s INITIAL %L SORT %s KIND %s PARALLEL %s', g.aggtransfn,
                    g.aggtranstype::regtype, g.aggfinalfn, g.aggcombinefn, g.agginitval, g.aggsortop::regoper, g.aggkind,
                    p.proparallel)",
            functions.replace("WHERE", "JOIN pg_aggregate g ON g.aggfnoid = p.oid WHERE"),
        )
        .schema()
        .owner("p.proowner")
        .acl("p.proacl", 'f')
        .comment("p.oid", "pg_proc"),
    ]
}

fn operators() -> Vec<Query> {
    use ObjectKind::{Collation, Conversion, Operator, TextSearch};
    let entries = "(SELECT string_agg(e, ', ' ORDER BY e COLLATE \"C\") FROM (
                       SELECT format('OPERATOR %s %s', amopstrategy, amopopr::regoperator) e FROM pg_amop WHERE amopfamily = f.oid
                       UNION ALL SELECT format('FUNCTION %s %s', amprocnum, amproc::regprocedure) FROM pg_amproc
                                  WHERE amprocfamily = f.oid) all_entries)";
    let search =
        |catalogue: &'static str, alias: &'static str, prefix: &'static str, word: &str, definition: &str| {
            Query::new(
                TextSearch,
                &format!("'{word} ' || format('%I.%I', n.nspname, {alias}.{prefix}name)"),
                definition,
                in_schemas(catalogue, alias, prefix),
            )
            .schema()
            .comment(&format!("{alias}.oid"), catalogue)
        };
    vec![
        Query::new(
            Operator,
            "o.oid::regoperator::text",
            "format('FUNCTION %s RESULT %s COMMUTATOR %s NEGATOR %s RESTRICT %s JOIN %s HASHES %s MERGES %s', o.oprcode,
                    o.oprresult::regtype, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprrest, o.oprjoin,
                    o.oprcanhash, o.oprcanmerge)",
            in_schemas("pg_operator", "o", "opr"),
        )
        .schema()
        .owner("o.oprowner")
        .comment("o.oid", "pg_operator"),
        Query::new(
            Operator,
            "format('operator family %I.%I USING %I', n.nspname, f.opfname, (SELECT amname FROM pg_am WHERE oid = f.opfmethod))",
            entries,
            in_schemas("pg_opfamily", "f", "opf"),
        )
        .schema()
        .owner("f.opfowner"),
        Query::new(
            Operator,
            "format('operator class %I.%I USING %I', n.nspname, oc.opcname, (SELECT amname FROM pg_am WHERE oid = oc.opcmethod))",
            "format('FOR %s%s', oc.opcintype::regtype, CASE WHEN oc.opcdefault THEN ' DEFAULT' ELSE '' END)",
            in_schemas("pg_opclass", "oc", "opc"),
        )
        .schema()
        .owner("oc.opcowner"),
        Query::new(
            Collation,
            "format('%I.%I', n.nspname, l.collname)",
            "format('PROVIDER %s COLLATE %s CTYPE %s DETERMINISTIC %s', l.collprovider, l.collcollate, l.collctype,
                    l.collisdeterministic)",
            in_schemas("pg_collation", "l", "coll"),
        )
        .schema()
        .owner("l.collowner")
        .comment("l.oid", "pg_collation"),
        Query::new(
            Conversion,
            "format('%I.%I', n.nspname, v.conname)",
            "format('FROM %s TO %s BY %s DEFAULT %s', pg_encoding_to_char(v.conforencoding), pg_encoding_to_char(v.contoencoding),
                    v.conproc, v.condefault)",
            in_schemas("pg_conversion", "v", "con"),
        )
        .schema()
        .owner("v.conowner")
        .comment("v.oid", "pg_conversion"),
        search("pg_ts_dict", "w", "dict", "dictionary", "format('TEMPLATE %s %s', (SELECT tmplname FROM pg_ts_template WHERE oid = w.dicttemplate), w.dictinitoption)")
            .owner("w.dictowner"),
        search(
            "pg_ts_config",
            "w",
            "cfg",
            "configuration",
            "(SELECT string_agg(format('%s %s %s', maptokentype, mapseqno, mapdict::regdictionary), ', '
                                ORDER BY maptokentype, mapseqno) FROM pg_ts_config_map WHERE mapcfg = w.oid)",
        )
        .owner("w.cfgowner"),
        search("pg_ts_parser", "w", "prs", "parser", "w.prsstart::text"),
        search("pg_ts_template", "w", "tmpl", "template", "w.tmpllexize::text"),
    ]
}

fn outside_schemas(version: u32) -> Vec<Query> {
    use ObjectKind::{
        Cast, DefaultAcl, EventTrigger, ForeignServer, Language, Publication, SecurityLabel, Subscription,
    };
    // Below 16384 lies what every database has from the beginning.
    let own = |catalogue: &str, alias: &str| {
        format!(
            "FROM {catalogue} {alias} WHERE {alias}.oid >= 16384 AND {}",
            not_a_member(catalogue, &format!("{alias}.oid"))
        )
    };
    let options = |column: &str| {
        format!("COALESCE((SELECT string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest({column}) o), '')")
    };
    let schemas = if version >= 150_000 {
        "COALESCE((SELECT string_agg(quote_ident(nspname), ', ' ORDER BY nspname COLLATE \"C\") FROM pg_publication_namespace
                     JOIN pg_namespace ns ON ns.oid = pnnspid WHERE pnpubid = b.oid), '')"
    } else {
        "''"
    };
    let filter =
        if version >= 150_000 { "COALESCE(' WHERE ' || pg_get_expr(prqual, prrelid), '')" } else { "''" };
    vec![
        Query::new(
            Cast,
            "format('%s AS %s', format_type(k.castsource, NULL), format_type(k.casttarget, NULL))",
            "format('METHOD %s CONTEXT %s FUNCTION %s', k.castmethod, k.castcontext, k.castfunc::regprocedure)",
            own("pg_cast", "k"),
        )
        .comment("k.oid", "pg_cast"),
        Query::new(
            Language,
            "quote_ident(l.lanname)",
            "format('HANDLER %s TRUSTED %s', l.lanplcallfoid::regproc, l.lanpltrusted)",
            own("pg_language", "l"),
        )
        .owner("l.lanowner")
        .acl("l.lanacl", 'l')
        .comment("l.oid", "pg_language"),
        Query::new(
            ForeignServer,
            "'wrapper ' || quote_ident(w.fdwname)",
            &format!("format('HANDLER %s VALIDATOR %s OPTIONS ', w.fdwhandler::regproc, w.fdwvalidator::regproc) || {}", options("w.fdwoptions")),
            own("pg_foreign_data_wrapper", "w"),
        )
        .owner("w.fdwowner")
        .acl("w.fdwacl", 'F'),
        Query::new(
            ForeignServer,
            "'server ' || quote_ident(s.srvname)",
            &format!(
                "format('TYPE %s VERSION %s WRAPPER %s OPTIONS ', s.srvtype, s.srvversion,
                        (SELECT fdwname FROM pg_foreign_data_wrapper WHERE oid = s.srvfdw)) || {}",
                options("s.srvoptions")
            ),
            own("pg_foreign_server", "s"),
        )
        .owner("s.srvowner")
        .acl("s.srvacl", 'S')
        .comment("s.oid", "pg_foreign_server"),
        // Their options hold passwords: only that they exist is compared.
        Query::new(
            ForeignServer,
            "format('user mapping for %I on %I', u.usename, u.srvname)",
            "''",
            "FROM pg_user_mappings u".to_owned(),
        ),
        Query::new(
            Publication,
            "quote_ident(b.pubname)",
            &format!(
                "format('ALL %s INSERT %s UPDATE %s DELETE %s TRUNCATE %s VIA ROOT %s SCHEMAS %s TABLES %s', b.puballtables,
                        b.pubinsert, b.pubupdate, b.pubdelete, b.pubtruncate, b.pubviaroot, {schemas},
                        (SELECT string_agg(format('%I.%I', n.nspname, c.relname) || {filter}, ', '
                                           ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\")
                           FROM pg_publication_rel JOIN pg_class c ON c.oid = prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                          WHERE prpubid = b.oid))"
            ),
            own("pg_publication", "b"),
        )
        .owner("b.pubowner")
        .comment("b.oid", "pg_publication"),
        Query::new(
            Subscription,
            "quote_ident(b.subname)",
            "format('SLOT %s PUBLICATIONS %s', b.subslotname, array_to_string(b.subpublications, ', '))",
            "FROM pg_subscription b WHERE b.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
                .to_owned(),
        )
        .owner("b.subowner"),
        Query::new(
            EventTrigger,
            "quote_ident(t.evtname)",
            "format('ON %s EXECUTE %s STATE %s TAGS %s', t.evtevent, t.evtfoid::regproc, t.evtenabled,
                    array_to_string(t.evttags, ', '))",
            own("pg_event_trigger", "t"),
        )
        .owner("t.evtowner")
        .comment("t.oid", "pg_event_trigger"),
        Query::new(
            DefaultAcl,
            "format('for %I%s on %s', pg_get_userbyid(a.defaclrole), COALESCE(' in ' || quote_ident(n.nspname), ''), a.defaclobjtype)",
            "(SELECT string_agg(x::text, ', ' ORDER BY x::text COLLATE \"C\") FROM unnest(a.defaclacl) x)",
            "FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace".to_owned(),
        ),
        Query::new(
            SecurityLabel,
            "format('%s of %s %s', l.provider, l.objtype, l.objname)",
            "l.label",
            "FROM pg_seclabels l WHERE l.objtype NOT IN ('database', 'role', 'tablespace')".to_owned(),
        ),
    ]
}

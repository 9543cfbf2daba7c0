//! Tables of every kind, with their columns.

use super::{USER_SCHEMA, acl, fetch};
use crate::postgres::{
    facts::Table,
    wire::{Connection, WireError},
};

/// All tables, partitioned roots, partitions and foreign tables that are neither the system's nor temporary, in order of
/// schema and name. Members of extensions are among them, named as such.
pub(super) fn tables(connection: &mut Connection, version: u32) -> Result<Vec<Table>, WireError> {
    let generated = match version {
        180_000.. => "CASE a.attgenerated WHEN 's' THEN ' STORED' WHEN 'v' THEN ' VIRTUAL' END",
        _ => "CASE a.attgenerated WHEN 's' THEN ' STORED' END",
    };
    let table_acl = acl("c.relacl", 'r', "c.relowner");
    let column_acl = acl("a.attacl", 'c', "c.relowner");
    fetch(
        connection,
        &format!(
            "SELECT n.nspname AS schema, c.relname AS name,
                    CASE WHEN c.relkind = 'p' THEN 'partitioned' WHEN c.relkind = 'f' THEN 'foreign'
                         WHEN c.relispartition THEN 'partition' ELSE 'table' END AS kind,
                    c.relpersistence = 'u' AS unlogged, pg_get_userbyid(c.relowner) AS owner,
                    COALESCE((SELECT json_agg(json_build_object(
                        'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
                        'default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
                        'generated', pg_get_expr(d.adbin, d.adrelid) || {generated},
                        'identity', NULLIF(a.attidentity, ''),
                        'collation', CASE WHEN a.attcollation <> t.typcollation
                                          THEN (SELECT format('%I.%I', cn.nspname, co.collname)
                                                  FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
                                                 WHERE co.oid = a.attcollation) END,
                        'storage', CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage END,
                        'compression', NULLIF(a.attcompression, ''),
                        'statistics', CASE WHEN a.attstattarget >= 0 THEN a.attstattarget END,
                        'acl', {column_acl},
                        'comment', col_description(c.oid, a.attnum)) ORDER BY a.attnum)
                       FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                       LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns,
                    CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END AS partition_key,
                    CASE WHEN c.relispartition THEN pg_get_expr(c.relpartbound, c.oid) END AS partition_bound,
                    COALESCE((SELECT json_agg(json_build_object('schema', pn.nspname, 'name', p.relname) ORDER BY i.inhseqno)
                       FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
                       JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE i.inhrelid = c.oid), '[]') AS inherits,
                    c.relrowsecurity AS row_security, c.relforcerowsecurity AS force_row_security,
                    c.relreplident AS replica_identity, am.amname AS access_method, ts.spcname AS tablespace,
                    COALESCE((SELECT array_agg(o ORDER BY o COLLATE \"C\") FROM (
                        SELECT unnest(c.reloptions) AS o
                        UNION ALL SELECT 'toast.' || unnest(toast.reloptions)
                        UNION ALL SELECT unnest(ft.ftoptions)
                        UNION ALL SELECT 'server=' || s.srvname WHERE s.srvname IS NOT NULL) all_options), '{{}}') AS options,
                    {table_acl} AS acl, obj_description(c.oid, 'pg_class') AS comment,
                    e.extname AS extension,
                    CASE WHEN c.oid = ANY (e.extconfig)
                         THEN COALESCE(e.extcondition[array_position(e.extconfig, c.oid)], '') END AS extension_condition
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
               LEFT JOIN pg_am am ON am.oid = c.relam
               LEFT JOIN pg_tablespace ts ON ts.oid = c.reltablespace
               LEFT JOIN pg_foreign_table ft ON ft.ftrelid = c.oid
               LEFT JOIN pg_foreign_server s ON s.oid = ft.ftserver
               LEFT JOIN pg_depend x ON x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.objsubid = 0
                                    AND x.deptype = 'e'
               LEFT JOIN pg_extension e ON e.oid = x.refobjid
              WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND {USER_SCHEMA}
              ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
        ),
    )
}

/**
 * CREATE DATABASE by copying files: the log names source and target only, so the pages are copied as they are at the
 * record. The caller has committed everything before it. Source and target pages of one relation and block live on the
 * same shard, since the hash leaves the database out.
 *
 * Source: PostgreSQL commands/dbcommands.c (dbase_redo).
 */
import type { DbaseEffect } from "../../postgres/effects/dbase.ts";
import { relBlockKey } from "../../keyspace/mapping.ts";
import type { RelTag } from "../../keyspace/relation.ts";
import { isKeyLocal } from "../../keyspace/shard.ts";
import type { DatadirModification } from "../datadir/datadir-modification.ts";

const PAGES_PER_READ = 64;

export async function copyDatabase(modification: DatadirModification, effect: Extract<DbaseEffect, { kind: "dbase-create-copy" }>): Promise<void> {
  const reader = modification.reader();
  const { sourceSpcOid, sourceDbOid, spcOid, dbOid } = effect;
  const source = (await reader.listDatabases()).get(`${sourceSpcOid}/${sourceDbOid}`);
  if (source?.hasRelmap === true) {
    await modification.relations.putRelmapFile(spcOid, dbOid, await reader.relmapFile(sourceSpcOid, sourceDbOid));
  } else {
    await modification.relations.ensureDatabase(spcOid, dbOid, false);
  }
  const rels = await reader.listRels(sourceSpcOid, sourceDbOid);
  const sizes = await reader.relSizes(rels);
  for (let index = 0; index < rels.length; index++) {
    const rel = rels[index];
    const blocks = sizes[index];
    await modification.relations.create({ ...rel, spcOid, dbOid }, blocks);
    await copyPages(modification, { from: rel, to: { ...rel, spcOid, dbOid }, blocks });
  }
}

async function copyPages(modification: DatadirModification, copy: { from: RelTag; to: RelTag; blocks: number }): Promise<void> {
  const reader = modification.reader();
  const { shard } = modification.datadir;
  for (let start = 0; start < copy.blocks; start += PAGES_PER_READ) {
    const count = Math.min(PAGES_PER_READ, copy.blocks - start);
    const local = Array.from({ length: count }, (_, index) => start + index).filter((block) => isKeyLocal(relBlockKey(copy.from, block), shard));
    const pages = await reader.relPages(local.map((block) => ({ rel: copy.from, block })));
    pages.forEach((page, index) => {
      if (page instanceof Error) throw page;
      modification.relations.putPage(copy.to, local[index], { kind: "image", bytes: page });
    });
    await modification.relieve();
  }
}

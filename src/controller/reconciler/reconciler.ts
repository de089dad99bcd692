/**
 * Carries out reconcile plans: at most one run a shard at a time, at most `RUNS_MAX` over all. A run asks for the
 * plan, does its first step, and asks again, so that it always acts on what is known now. A shard that was asked for
 * while it ran is run once more; a run that failed is retried by the role's periodic pass.
 */
import { describeError, InvariantError, isStrataError } from "../../kit/errors.ts";
import { tenantShardIdToString, type NodeId } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { LocationMode } from "../api/upcall.ts";
import type { Persistence } from "../persistence/persistence.ts";
import type { ControllerState, TenantShard } from "../service/state.ts";
import type { LocationConfigBody, NodeClient } from "./node-client.ts";
import { planReconcile, type ReconcileStep } from "./plan.ts";

const RUNS_MAX = 128;
/** A plan has at most a few steps a node; more means that it does not converge. */
const STEPS_MAX = 64;

export interface ReconcilerDeps {
  readonly state: ControllerState;
  readonly persistence: Persistence;
  readonly nodes: NodeClient;
  readonly log: Logger;
}

export class Reconciler {
  readonly #deps: ReconcilerDeps;
  readonly #runs = new Map<TenantShard, Promise<void>>();
  readonly #again = new Set<TenantShard>();
  readonly #waiting: (() => void)[] = [];
  #active = 0;
  #stopped = false;

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps;
  }

  get activeRuns(): number {
    return this.#runs.size;
  }

  /** Steps still to do for this shard; empty when it is where it should be. */
  plan(shard: TenantShard): ReconcileStep[] {
    const { state } = this.#deps;
    return planReconcile({
      intent: { attached: shard.intentAttached, secondary: shard.intentSecondary },
      observed: shard.observed,
      generation: shard.generation,
      generationNode: shard.generationNode,
      configJson: JSON.stringify(shard.config),
      reachable: (id) => state.nodes.get(id) !== undefined && state.nodes.get(id)?.availability !== "Offline",
    });
  }

  /** Brings the shard where it should be; resolves when it is. @throws what the last attempt failed with */
  reconcile(shard: TenantShard): Promise<void> {
    const running = this.#runs.get(shard);
    if (running !== undefined) {
      this.#again.add(shard);
      return running;
    }
    const run = this.#run(shard).finally(() => {
      this.#runs.delete(shard);
      shard.reconciling = false;
    });
    this.#runs.set(shard, run);
    return run;
  }

  /** The same without anyone waiting: failures are logged and left in `lastError`. */
  reconcileInBackground(shard: TenantShard): void {
    this.reconcile(shard).catch((error: unknown) => {
      const level = isStrataError(error) && error.kind !== "corrupt" ? "info" : "warn";
      this.#deps.log[level]("reconcile failed, will be retried", { tenant: tenantShardIdToString(shard.id), error });
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.allSettled(this.#runs.values());
  }

  async #run(shard: TenantShard): Promise<void> {
    shard.reconciling = true;
    if (this.#active >= RUNS_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#active++;
    try {
      do {
        this.#again.delete(shard);
        await this.#converge(shard);
      } while (this.#again.has(shard) && !this.#stopped);
      shard.lastError = "";
    } catch (error) {
      shard.lastError = describeError(error);
      throw error;
    } finally {
      this.#active--;
      this.#waiting.shift()?.();
    }
  }

  async #converge(shard: TenantShard): Promise<void> {
    for (let done = 0; !this.#stopped; done++) {
      const [step] = this.plan(shard);
      if (step === undefined) return;
      if (done >= STEPS_MAX) throw new InvariantError(`reconciling ${tenantShardIdToString(shard.id)} does not converge: next step ${JSON.stringify(step)}`);
      await this.#carryOut(shard, step);
    }
  }

  async #carryOut(shard: TenantShard, step: ReconcileStep): Promise<void> {
    if (step.kind === "configure") return this.#configure(shard, step.node, step.mode);
    const generation = await this.#deps.persistence.incrementGeneration(shard.id, step.node);
    shard.generation = generation;
    shard.generationNode = step.node;
  }

  async #configure(shard: TenantShard, nodeId: NodeId, mode: LocationMode): Promise<void> {
    const node = this.#deps.state.node(nodeId);
    const body = this.#body(shard, nodeId, mode);
    // Until the answer is here nobody knows what the node has.
    shard.observed.set(nodeId, null);
    await this.#deps.nodes.putLocationConfig(node, shard.id, body);
    this.#deps.log.info("location configured", { tenant: tenantShardIdToString(shard.id), node: nodeId, mode, generation: body.generation });
    if (mode === "Detached") shard.observed.delete(nodeId);
    else shard.observed.set(nodeId, { mode, generation: body.generation, configJson: JSON.stringify(shard.config) });
  }

  #body(shard: TenantShard, nodeId: NodeId, mode: LocationMode): LocationConfigBody {
    const attached = mode === "AttachedSingle" || mode === "AttachedMulti" || mode === "AttachedStale";
    const stale = mode === "AttachedStale" ? (shard.observed.get(nodeId)?.generation ?? null) : shard.generation;
    return {
      mode,
      generation: attached ? stale : null,
      secondary_conf: mode === "Secondary" ? { warm: true } : null,
      shard_number: shard.id.number,
      shard_count: shard.id.count,
      shard_stripe_size: shard.stripeSizePages,
      tenant_conf: shard.config,
    };
  }
}

/**
 * flock(2), which the runtime's file module lacks. The lock belongs to the open file: the kernel drops it when the process
 * ends in whatever way, and child processes do not keep it, because the runtime opens files close-on-exec.
 */
import { dlopen } from "bun:ffi";

const LOCK_EX = 2;
const LOCK_NB = 4;

let library: { readonly flock: (fd: number, operation: number) => number } | undefined;

function libc(): { readonly flock: (fd: number, operation: number) => number } {
  library ??= dlopen("libc.so.6", { flock: { args: ["i32", "i32"], returns: "i32" } }).symbols;
  return library;
}

/** Takes an exclusive lock on an open file; false when another open file holds it. */
export function tryLockFile(fd: number): boolean {
  return libc().flock(fd, LOCK_EX | LOCK_NB) === 0;
}

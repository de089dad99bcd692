/** The memory of this process. */
export const processMemory = {
  residentBytes: (): number => process.memoryUsage.rss(),
  collect(): void {
    Bun.gc(true);
    // What the allocator keeps for later goes back to the system.
    Bun.shrink();
  },
};

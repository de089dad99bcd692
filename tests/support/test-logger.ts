/** The logger of a test: a WARN or ERROR the test did not announce fails it when it ends. */
import { onTestFinished } from "bun:test";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";

/** Call inside a test (or a beforeEach of it). */
export function testLogger(): RecordingLogger {
  const log = new RecordingLogger();
  onTestFinished(() => log.assertQuiet());
  return log;
}

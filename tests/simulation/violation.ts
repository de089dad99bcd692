/** An invariant of the system does not hold: what a simulation is looking for. */
export class Violation extends Error {
  constructor(message: string) {
    super(message);
    this.name = "Violation";
  }
}

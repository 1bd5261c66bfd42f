/** How long a JWT is valid from its issue on, in milliseconds; undefined if it does not state both times. */
export function lifetimeOf(token: string): number | undefined {
  try {
    const claims = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    const { iat, exp } = JSON.parse(atob(claims));
    // By the clock of the server alone: the clock of this device may be wrong.
    return exp > iat ? (exp - iat) * 1000 : undefined;
  } catch {
    return undefined;
  }
}

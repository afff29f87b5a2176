// What a reader prefers, kept in this browser. Nothing of a case is ever kept.

export function kept(name, otherwise) {
  try {
    return localStorage.getItem(`gsco-${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`gsco-${name}`, value);
  } catch {
    // A browser that keeps nothing asks again next time.
  }
}

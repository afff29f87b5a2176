// Outlines of segmentation specialists: the lines at which a map of probabilities crosses a half.

import { upload } from "./service.js";

const HALF = 0.5;

// What every segmentation specialist outlines: a Path2D over a square of one by one, by name.
export async function outlines({ file, task, frame }, signal) {
  const response = await upload("v1/segmentations", { file, task, frame }, "application/json", signal);
  const { segmentations } = await response.json();
  return new Map(segmentations.map(({ specialist, map }) => [specialist, traced(map)]));
}

// Marching squares between the centres of the map's cells; around the map there is nothing.
export function traced(map) {
  const [rows, columns] = [map.length, map[0].length];
  const at = (row, column) => map[row]?.[column] ?? 0;
  const path = new Path2D();
  for (let row = -1; row < rows; row++) {
    for (let column = -1; column < columns; column++) {
      const crossings = crossed(at(row, column), at(row, column + 1), at(row + 1, column + 1), at(row + 1, column));
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        for (const [place, [x, y]] of [crossings[i], crossings[i + 1]].entries()) {
          const point = [(column + 0.5 + x) / columns, (row + 0.5 + y) / rows];
          if (place) path.lineTo(...point);
          else path.moveTo(...point);
        }
      }
    }
  }
  return path;
}

// Where the border of one cell is crossed, clockwise from its upper left corner; 0, 2 or 4 points.
function crossed(a, b, c, d) {
  const share = (from, to) => (HALF - from) / (to - from);
  const points = [];
  if (a > HALF !== b > HALF) points.push([share(a, b), 0]);
  if (b > HALF !== c > HALF) points.push([1, share(b, c)]);
  if (c > HALF !== d > HALF) points.push([1 - share(c, d), 1]);
  if (d > HALF !== a > HALF) points.push([0, 1 - share(d, a)]);
  return points;
}

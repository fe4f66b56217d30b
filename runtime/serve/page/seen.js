// Which part of the picture is seen: all of it, or, enlarged, as much as the canvas holds.

const LARGEST = 16;

export class Seen {
  /** How many times larger than where all is seen, and the picture's point in the upper left corner. */
  zoom = 1;
  origin = [0, 0];

  /** @param size width and height of the picture. */
  constructor(size) {
    this.size = size;
  }

  /** The picture's point at a place of the canvas, given in parts of its sides, 0 to 1. */
  pointAt(parts) {
    return parts.map((part, axis) => this.origin[axis] + part * this.size[axis] / this.zoom);
  }

  /** Enlarge by a factor; a point of the picture stays where it is. Without one, the middle does. */
  enlarge(factor, point = this.pointAt([0.5, 0.5])) {
    const zoom = Math.min(Math.max(this.zoom * factor, 1), LARGEST);
    this.origin = point.map((value, axis) => value - (value - this.origin[axis]) * this.zoom / zoom);
    this.zoom = zoom;
    this.move([0, 0]);
  }

  /** Go on by so many pixels of the picture, as far as there is picture. */
  move(by) {
    this.origin = this.origin.map((value, axis) =>
      Math.min(Math.max(value + by[axis], 0), this.size[axis] * (1 - 1 / this.zoom)));
  }

  /** Go to where a point can be seen. */
  reach(point) {
    this.move(point.map((value, axis) => {
      const end = this.origin[axis] + this.size[axis] / this.zoom;
      return Math.min(value - this.origin[axis], 0) + Math.max(value - end, 0);
    }));
  }
}

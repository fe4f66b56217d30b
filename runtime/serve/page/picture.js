// A picture from a file, the clipboard or the camera, in a form that the server takes.

const TAKEN = ["image/png", "image/jpeg", "image/webp"];

/**
 * Read a picture. What is seen here is what is sent: another format than the server's becomes PNG, and a picture beyond
 * its limits is made smaller, which `note` says.
 *
 * @param blob the file. @param limits the server's, with `pixels` and `body_bytes`.
 * @returns {{blob: Blob, bitmap: ImageBitmap, width: number, height: number, note: string}}
 */
export async function readPicture(blob, limits) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob); // turned upright by its EXIF, as the server turns it
  } catch {
    throw new Error("That cannot be read as a picture. PNG, JPEG and WebP can.");
  }
  let taken = blob;
  let note = "";
  const many = limits?.pixels ? bitmap.width * bitmap.height / limits.pixels : 0;
  const heavy = limits?.body_bytes ? blob.size / limits.body_bytes : 0;
  if (many > 1 || heavy > 1) {
    const smaller = Math.min(1, 0.98 / Math.sqrt(Math.max(many, heavy)));
    const before = `${bitmap.width} x ${bitmap.height}`;
    [bitmap, taken] = await redrawn(bitmap, smaller, "image/jpeg");
    note = `The picture was ${before}, more than this server takes; it was made ${bitmap.width} x ${bitmap.height}.`;
  } else if (!TAKEN.includes(blob.type)) {
    [bitmap, taken] = await redrawn(bitmap, 1, "image/png");
  }
  return { blob: taken, bitmap, width: bitmap.width, height: bitmap.height, note };
}

/** The same picture as plain pixels, for a server that turns it otherwise than the browser. */
export async function plain(picture) {
  const [bitmap, blob] = await redrawn(picture.bitmap, 1, "image/png");
  return { ...picture, bitmap, blob };
}

/** The first picture among what was dropped or pasted, or null. */
export function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}

async function redrawn(bitmap, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
  canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (type === "image/jpeg") { // which knows no transparency
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
  return [await createImageBitmap(canvas), blob];
}

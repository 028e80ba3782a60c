"use strict";
// Lays two pictures of a sample over each other with a movable cut. Without scripts the strip of pictures is all there is.
const template = document.getElementById("compare");
document.querySelectorAll("article.sample").forEach((card, place) => {
  const pictures = [...card.querySelectorAll(".layers img")];
  if (pictures.length < 2) return;
  const names = pictures.map((picture) => picture.dataset.layer);
  const widget = template.content.cloneNode(true).firstElementChild;
  const [before, after] = widget.querySelectorAll("select");
  const range = widget.querySelector("input");
  const stage = widget.querySelector(".stage");
  const [under, over] = [0, 1].map(() => stage.insertBefore(document.createElement("img"), stage.lastElementChild));
  widget.style.setProperty("--width", pictures[0].width + "px");
  for (const select of [before, after]) names.forEach((name) => select.add(new Option(name)));
  const masks = names.filter((name) => name !== "truth");
  before.value = names.includes("CAM") ? "CAM" : names[0];
  after.value = masks[masks.length - 1];
  const show = () => {
    const [left, right] = [before, after].map((select) => pictures[names.indexOf(select.value)]);
    for (const [image, source] of [[over, left], [under, right]]) {
      if (image.src !== source.src) image.src = source.src;
      [image.alt, image.width, image.height] = [source.alt, source.width, source.height];
    }
    stage.style.setProperty("--cut", range.value + "%");
    range.setAttribute("aria-valuetext", `${range.value} % ${before.value}, the rest ${after.value}`);
  };
  const follow = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = stage.getBoundingClientRect();
    range.value = (100 * (event.clientX - box.left)) / box.width;
    show();
  };
  for (const control of [before, after, range]) control.addEventListener("input", show);
  for (const kind of ["pointerdown", "pointermove"]) stage.addEventListener(kind, follow);
  widget.open = place === 0;
  card.append(widget);
  show();
});

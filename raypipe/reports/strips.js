// Says how many pixels of a strip of pictures are hidden at either side, up to the width over which the strip fades there.
for (const strip of document.querySelectorAll(".strip")) {
  const fade = (side, hidden) => strip.style.setProperty(`--hidden-${side}`, Math.max(0, Math.min(24, hidden)) + "px");
  const look = () => {
    const hidden = strip.scrollWidth - strip.clientWidth;
    fade("left", strip.scrollLeft);
    fade("right", hidden > 1 ? hidden - strip.scrollLeft : 0);
  };
  strip.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(strip);
}

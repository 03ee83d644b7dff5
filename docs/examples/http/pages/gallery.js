const form = document.querySelector("form");
const told = document.querySelector("output");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
  const content = await answer.json();
  told.textContent = answer.ok ? "" : content.detail;
  if (answer.ok) form.reset();
});

new EventSource("events").addEventListener("message", (event) => {
  const picture = JSON.parse(event.data);
  const figure = document.createElement("figure");
  const image = document.createElement("img");
  const caption = document.createElement("figcaption");
  image.src = `pictures/${picture.name}`;
  image.alt = caption.textContent = picture.title;
  figure.append(image, caption);
  document.querySelector("main").prepend(figure);
});

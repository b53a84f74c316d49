// `node axe.cjs FILE...`: what axe-core finds in pages, light and dark, 1280 and 400 pixels wide; fails on any finding.
// The folder it runs in must hold axe-core and puppeteer-core: `make axe` installs them into a temporary one.
const { createRequire } = require("node:module");
const { pathToFileURL } = require("node:url");
const installed = createRequire(`${process.cwd()}/`);
const { launch } = installed("puppeteer-core");
const source = installed("axe-core").source;

async function findings(browser, file, width, scheme) {
  const page = await browser.newPage();
  const loaded = [];
  page.on("request", (request) => { if (/^(https?|ftp|wss?):/.test(request.url())) loaded.push(request.url()); });
  await page.setBypassCSP(true); // The pages forbid scripts, axe's too.
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(file).href);
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  await page.evaluate(source);
  const { violations, passes } = await page.evaluate(() => axe.run());
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.close();
  const found = violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${rule.help}: ${node.html.slice(0, 200)}`));
  if (!passes.length) found.push("axe checked nothing");
  if (wide > width) found.push(`the page scrolls sideways: it is ${wide} pixels wide`);
  return [...found, ...loaded.map((url) => `loaded from elsewhere: ${url}`)];
}

(async () => {
  const quiet = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", ...quiet];
  const browser = await launch({ executablePath: process.env.CHROMIUM, args });
  let count = 0;
  for (const file of process.argv.slice(2)) {
    for (const width of [1280, 400]) {
      for (const scheme of ["light", "dark"]) {
        const found = await findings(browser, file, width, scheme);
        console.log(`${file}, ${width} pixels, ${scheme}: ${found.length} found`);
        for (const line of new Set(found)) console.log(`  ${line}`);
        count += found.length;
      }
    }
  }
  await browser.close();
  process.exit(count ? 1 : 0);
})();

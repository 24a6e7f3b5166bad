// Package browser tests the page that a node serves in a headless Chromium. It is a module of its
// own, so that who embeds weir does not inherit a browser's driver. The command: make browser.
package browser

// Package browser tests the page that a node serves in a headless Chromium. It is a separate module, so that programs that
// embed weir do not inherit a browser driver. The command: make browser.
package browser

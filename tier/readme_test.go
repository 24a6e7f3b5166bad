package tier_test

import (
	"os"
	"strings"
	"testing"
)

// The README shows the example that this package compiles and runs.
func TestReadmeShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	body := string(source)
	body = body[strings.Index(body, "func Example() {"):]
	body = body[:strings.Index(body, "\n}\n")+3]
	if !strings.Contains(string(readme), body) {
		t.Errorf("README.md does not hold this, between its example markers:\n%s", body)
	}
}

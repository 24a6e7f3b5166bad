// Package testlog is a log that a test reads while others write to it. Only tests may import it.
package testlog

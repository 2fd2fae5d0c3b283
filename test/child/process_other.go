//go:build !linux

package child

import "os/exec"

// setDeathSignal does nothing here: the end of standard input ends the child.
func setDeathSignal(*exec.Cmd) {}

// awaitStopped can't tell here.
func awaitStopped(int) error { return nil }

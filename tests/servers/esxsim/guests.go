package main

import (
	"fmt"
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// guest answers what the simulator pretends or lacks of a guest: without tools nobody listens; with them (an order by
// /ctl/tools) a guest shuts down, or goes on after a reboot. It says whether it answered.
func (f *front) guest(w http.ResponseWriter, m *simulator.Method) bool {
	if m.Name != "ShutdownGuest" && m.Name != "RebootGuest" {
		return false
	}
	vm, ok := simulator.Map.Get(m.This).(*simulator.VirtualMachine)
	f.mu.Lock()
	tools := f.tools
	f.mu.Unlock()
	switch {
	case !ok:
		soapFault(w, m.This, "ManagedObjectNotFound")
	case vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn:
		soapFault(w, m.This, "InvalidPowerState")
	case !tools:
		soapFault(w, m.This, "ToolsUnavailable")
	case m.Name == "ShutdownGuest":
		return false
	default:
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		fmt.Fprint(w, head+`<RebootGuestResponse xmlns="urn:vim25"></RebootGuestResponse>`+tail)
	}
	return true
}

package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// relocated puts a machine on its new host's list and takes it from the others', which the simulator forgets.
func relocated(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	to := m.Body.(*types.RelocateVM_Task).Spec.Host
	if to == nil {
		return result, nil
	}
	for _, e := range simulator.Map.All("HostSystem") {
		host := e.(*simulator.HostSystem)
		var kept []types.ManagedObjectReference
		for _, vm := range host.Vm {
			if vm != m.This {
				kept = append(kept, vm)
			}
		}
		if host.Self == *to {
			kept = append(kept, m.This)
		}
		simulator.Map.Update(host, []types.PropertyChange{{Name: "vm", Val: kept}})
	}
	return result, nil
}

# bash completion for trivisor(1)
_trivisor_disk()
{
    if [ "$COMP_CWORD" -eq 2 ]; then
        COMPREPLY=($(compgen -W "create info check convert compare map resize snapshot commit rebase --help" -- "$cur"))
        return
    fi
    case $prev in
    --format | --to) COMPREPLY=($(compgen -W "raw vmdk qcow2 vpc vdi vhdx" -- "$cur")) ;;
    --type)
        COMPREPLY=($(compgen -W "monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat
            streamOptimized vmfs" -- "$cur"))
        ;;
    --adapter) COMPREPLY=($(compgen -W "ide lsilogic buslogic pvscsi" -- "$cur")) ;;
    *)
        case $cur in
        -*)
            COMPREPLY=($(compgen -W "--format --to --type --adapter --parent --json --repair --force --unsafe --shrink
                --preallocate --zeroed-grains --help" -- "$cur"))
            ;;
        *)
            compopt -o filenames 2>/dev/null
            COMPREPLY=($(compgen -f -- "$cur"))
            ;;
        esac
        ;;
    esac
}

_trivisor()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local options="--kernel --initrd --append --disk --cdrom --floppy --boot --option-rom --bios --firmware --uefi-vars --memory --cpus --mode --require --tcache --bt-opt --cpu --hypervisor --serial --debug-exit
        --display --vga --keyboard --vnc-password --screenshot --monitor --no-reboot --on-panic --verify --stats --log --symbols --gdb --quiet --help"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "run modes disk monitor version --help --version" -- "$cur"))
        return
    fi
    if [ "${COMP_WORDS[1]}" = disk ]; then
        _trivisor_disk
        return
    fi
    case $prev in
    --firmware)
        COMPREPLY=($(compgen -W "bios uefi" -- "$cur"))
        return
        ;;
    --uefi-vars | --kernel | --initrd | --screenshot | --monitor | --vnc-password | --symbols)
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$cur"))
        ;;
    --mode) COMPREPLY=($(compgen -W "auto bt interp hw" -- "$cur")) ;;
    --require) COMPREPLY=($(compgen -W "bt interp hw" -- "$cur")) ;;
    --cpu) COMPREPLY=($(compgen -W "host max x86-64-v1 x86-64-v2 x86-64-v3 x86-64-v4" -- "$cur")) ;;
    --hypervisor) COMPREPLY=($(compgen -W "vmware trivisor none" -- "$cur")) ;;
    --serial) COMPREPLY=($(compgen -W "stdio none pty file: unix:" -- "$cur")) ;;
    --display) COMPREPLY=($(compgen -W "none vnc vnc= web web=" -- "$cur")) ;;
    --vga) COMPREPLY=($(compgen -W "std svga none" -- "$cur")) ;;
    --keyboard) COMPREPLY=($(compgen -W "us uk de fr es it" -- "$cur")) ;;
    --on-panic) COMPREPLY=($(compgen -W "notify exit" -- "$cur")) ;;
    --log) COMPREPLY=($(compgen -W "int cr msr cpuid io mmio exec cpu dev reset verify perfmap all" -- "$cur")) ;;
    --bt-opt) COMPREPLY=($(compgen -W "all none -flags -links -jumps -blocks -inline -share -returns -direct -copy" -- "$cur")) ;;
    --append | --memory | --tcache | --cpus | --debug-exit | --gdb) ;;
    *)
        case ${COMP_WORDS[1]} in
        run)
            if [ "$COMP_CWORD" -eq 2 ] && [[ $cur != -* ]]; then
                compopt -o filenames 2>/dev/null
                COMPREPLY=($(compgen -f -X '!*.[vV][mM][xX]' -- "$cur") $(compgen -d -- "$cur")
                    $([ -n "$cur" ] || echo "$options"))
            else
                COMPREPLY=($(compgen -W "$options" -- "$cur"))
            fi
            ;;
        monitor)
            if [ "$COMP_CWORD" -eq 3 ]; then
                COMPREPLY=($(compgen -W "info change eject screenshot key type pause resume reset power quit stats help" -- "$cur"))
            else
                compopt -o filenames 2>/dev/null
                COMPREPLY=($(compgen -f -- "$cur"))
            fi
            ;;
        modes) COMPREPLY=($(compgen -W "--json" -- "$cur")) ;;
        esac
        ;;
    esac
}
complete -F _trivisor trivisor

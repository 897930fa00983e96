/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A host that calls one function of the library. */

#include "vfio_display.h"

int main(void)
{
    return !vfio_dpy_check_version(VFIO_DISPLAY_VERSION);
}
